"""Query pools: the images a thief sends to the victim."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from divqat_brevitas.data.arrays import Images, default_root, require
from divqat_brevitas.data.cache import is_stored, verified
from divqat_brevitas.data.letters import letters
from divqat_brevitas.data.noise import noise
from divqat_brevitas.data.photos import open_photos, patches, photo_folder, sample_photos
from divqat_brevitas.data.pictures import stack
from divqat_brevitas.data.registry import load, resolve
from divqat_brevitas.data.splits import permutation
from divqat_brevitas.errors import InputError, unknown_name

Kind = Literal["in", "out", "free"]
POOLS: dict[str, Kind] = {
    "in": "in",
    "letters": "out",
    "fonts": "out",
    "photos": "out",
    "wallpapers": "out",
    "noise": "free",
    "dataset:NAME": "out",
    "photos:FOLDER": "out",
}


@dataclass(frozen=True)
class QueryPool:
    """Unlabelled images to query a victim with.

    Attributes:
        name: as asked for.
        kind: "in" (of the victim's own distribution), "out" (other images), "free" (no data).
        images: uint8 (N, C, H, W) in the victim's shape.
    """

    name: str
    kind: Kind
    images: Images


def query_pool(
    name: str, dataset: str, count: int, seed: int, root: Path | None = None
) -> QueryPool:
    """Make a pool of ``count`` images in the shape of the victim's data set.

    Args:
        name: "in" (the held-out pool split), "letters" (rendered, bundled fonts), "fonts"
            (rendered, 465 fetched fonts), "photos" (patches of two photos in scikit-learn),
            "photos:FOLDER" (patches of your own), "wallpapers" (patches of 15 fetched photos),
            "noise" (synthetic), or "dataset:NAME" (another set, fitted to the shape, without
            its test images).
        dataset: the victim's data set; gives the shape and, for "in", the images.
        count: number of images, at least 1.
        seed: the same arguments give the same images; a smaller count is their beginning.
        root: data folder; default: $DIVQAT_DATA, else the user's cache.

    Returns:
        The pool.

    Raises:
        InputError: unknown pool, more images than there are, a set that shares images with the
            victim's, or material that is not there.
        ToolMissingError: the package that draws or holds the images is not installed.

    Example:
        >>> query_pool("noise", "digits", 3, seed=0).images.shape
        (3, 1, 8, 8)
    """
    victim = resolve(dataset)
    shape = victim.info.shape
    root = default_root() if root is None else Path(root)
    if count < 1 or seed < 0:
        raise InputError(f"a query pool needs count >= 1 and seed >= 0, not {count} and {seed}.")

    family, _, argument = name.partition(":")
    kind: Kind = "out"
    if name == "in":
        kind, images = "in", _draw(name, load(dataset, "pool", root)[0], count, seed)
    elif name == "letters":
        images = letters(count, shape, seed)
    elif name == "fonts":
        images = letters(count, shape, seed, _material("fonts", root))
    elif name == "photos":
        images = patches(sample_photos(), count, shape, seed)
    elif name == "wallpapers":
        images = patches(open_photos(_material("wallpapers", root)), count, shape, seed)
    elif name == "noise":
        kind, images = "free", noise(count, shape, seed)
    elif family == "photos" and argument:
        images = patches(photo_folder(Path(argument).expanduser()), count, shape, seed)
    elif family == "dataset" and argument:
        other = resolve(argument)
        if other.overlaps(victim):
            raise InputError(
                f"the pool {name!r} shares images with the victim's set {dataset!r}. "
                "Use the pool 'in', or choose other classes."
            )
        splits = [load(argument, split, root)[0] for split in ("train", "val", "pool")]
        images = fit(_draw(name, np.concatenate(splits), count, seed), shape)
    else:
        raise unknown_name("query pool", name, POOLS)
    return QueryPool(name, kind, images)


def fit(images: Images, shape: tuple[int, int, int]) -> Images:
    """Resize and grey-convert (ITU-R 601 luma) or repeat channels to ``shape``.

    Args:
        images: uint8 (N, C, H, W), C 1 or 3.
        shape: (C, H, W) wanted.

    Returns:
        uint8 (N, *shape).

    Raises:
        ToolMissingError: Pillow is not installed, and sizes or channels differ.
    """
    if images.shape[1:] == shape:
        return images
    require("PIL")
    from PIL import Image

    pictures = (Image.fromarray(i[0] if len(i) == 1 else i.transpose(1, 2, 0)) for i in images)
    return stack(pictures, len(images), shape)


def _draw(name: str, images: Images, count: int, seed: int) -> Images:
    if count > len(images):
        raise InputError(
            f"the pool {name!r} has {len(images)} images, {count} were asked for. "
            "Ask for fewer, or take another pool."
        )
    return images[permutation(len(images), seed)[:count]]


def _material(name: str, root: Path) -> list[Path]:
    if not is_stored(root, name):
        raise InputError(f"the material {name!r} is not in {root}. Run: divqat data fetch {name}")
    return verified(root, name)

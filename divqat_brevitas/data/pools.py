"""Query pools: the images that an attacker may ask."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from divqat_brevitas.data.arrays import Pixels, Shape, default_root, permutation, require
from divqat_brevitas.data.cache import is_stored, verified
from divqat_brevitas.data.drawings import drawings, letters, noise
from divqat_brevitas.data.pictures import open_photos, patches, photo_folder, sample_photos, stack
from divqat_brevitas.data.pixels import OPTIONS, PictureRules, split_options
from divqat_brevitas.data.registry import Dataset, load, resolve
from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.short_repr import ShortRepr

PoolKind = Literal["in", "out", "free"]
IN_DISTRIBUTION: Final = "in"
OUT_OF_DISTRIBUTION: Final = "out"
DATA_FREE: Final = "free"
Relation = Literal["same", "disjoint", "foreign", "mixed", "none"]
POOLS: dict[str, PoolKind] = {
    "in": IN_DISTRIBUTION,
    "letters": OUT_OF_DISTRIBUTION,
    "fonts": OUT_OF_DISTRIBUTION,
    "photos": OUT_OF_DISTRIBUTION,
    "photos+": OUT_OF_DISTRIBUTION,
    "wallpapers": OUT_OF_DISTRIBUTION,
    "backgrounds": OUT_OF_DISTRIBUTION,
    "emoji": OUT_OF_DISTRIBUTION,
    "noise": DATA_FREE,
    "dataset:NAME": OUT_OF_DISTRIBUTION,
    "photos:FOLDER": OUT_OF_DISTRIBUTION,
    "mix:in:SHARE,POOL": IN_DISTRIBUTION,
}
_PHOTOGRAPHS = {
    "wallpapers": ("wallpapers",),
    "photos+": ("wallpapers", "landscapes"),
    "backgrounds": ("landscapes", "backgrounds"),
}


@dataclass(frozen=True)
class QueryPool(ShortRepr):
    """Unlabelled images to query a victim with.

    Attributes:
        name: as asked for.
        kind: "in" (in-distribution), "out" (out-of-distribution) or "free" (data-free).
            A mixture with one in-distribution image is "in".
        images: uint8 (N, C, H, W) in the victim's shape.
        relation: to the victim's set, finer than ``kind``: "same" (its held-out split),
            "disjoint" (other classes of the same set: other objects, but the same camera and
            framing), "foreign" (another set or material), "mixed" (of two pools), "none"
            (synthetic). Derived from ``kind`` when left out.
    """

    name: str
    kind: PoolKind
    images: Pixels
    relation: Relation | None = None

    def __post_init__(self) -> None:
        if self.relation is None:
            relations: dict[PoolKind, Relation] = {
                IN_DISTRIBUTION: "same",
                OUT_OF_DISTRIBUTION: "foreign",
                DATA_FREE: "none",
            }
            object.__setattr__(self, "relation", relations[self.kind])


def query_pool(
    name: str,
    dataset: str,
    count: int,
    seed: int,
    root: Path | None = None,
    shape: Shape | None = None,
) -> QueryPool:
    """Make a pool of ``count`` images in the shape of the victim's data set, or another.

    Args:
        name: "in" (the held-out pool split), "letters" (rendered, bundled fonts), "fonts"
            (rendered, 465 fetched fonts), "photos" (patches of two photos in scikit-learn),
            "photos:FOLDER" (patches of your own; options "?background=black&range=0..4095" as in
            :func:`divqat_brevitas.data.load`), "wallpapers" (patches of 15 fetched photos),
            "photos+" (of those and 12 landscapes), "backgrounds" (of those landscapes and 64
            fetched desktop backgrounds and sample pictures: outliers to train with), "emoji"
            (7,500 fetched colour drawings), "noise" (synthetic), "dataset:NAME" (another
            set, or other classes of the victim's as "dataset:cifar10:5-9" for a victim on
            "cifar10:0-4"; fitted to the shape, without test images), or "mix:POOL:SHARE,POOL",
            such as "mix:in:0.05,wallpapers": an attacker with a few in-distribution images.
        dataset: the victim's data set; it defines the shape and, for "in", the images.
        count: number of images, at least 1.
        seed: equal arguments give equal images; a smaller count gives the first of them.
        root: data folder; default: $DIVQAT_DATA, else the user's cache.
        shape: (C, H, W) of the images; None: the data set's own.

    Returns:
        The pool.

    Raises:
        InputError: unknown pool, more images than there are, a set that shares images with the
            victim's, or material that is not there.
        ToolMissingError: the package that draws or holds the images is not installed.

    Example:
        >>> query_pool("noise", "digits", 3, seed=0).images.shape
        (3, 1, 8, 8)
        >>> query_pool("mix:in:0.1,letters", "digits", 40, seed=0).relation
        'mixed'
    """
    victim = resolve(dataset)
    root = default_root() if root is None else Path(root)
    shape = shape or victim.info.shape
    if count < 1 or seed < 0:
        raise InputError(f"a query pool needs count >= 1 and seed >= 0, not {count} and {seed}.")

    family, _, argument = name.partition(":")
    if name == "in":
        images = _draw(name, load(dataset, "pool", root)[0], count, seed)
        return QueryPool(name, IN_DISTRIBUTION, fit(images, shape))
    if name == "noise":
        return QueryPool(name, DATA_FREE, noise(count, shape, seed))
    if family == "mix":
        return _mixed(name, dataset, count, seed, root, shape)
    if family == "dataset" and argument:
        return _other_set(name, resolve(argument), victim, count, seed, root, shape)
    return QueryPool(name, OUT_OF_DISTRIBUTION, _material_images(name, count, shape, seed, root))


def _material_images(name: str, count: int, shape: Shape, seed: int, root: Path) -> Pixels:
    family, _, argument = name.partition(":")
    if name == "letters":
        return letters(count, shape, seed)
    if name == "fonts":
        return letters(count, shape, seed, _material("fonts", root))
    if name == "emoji":
        return drawings(_material("emoji", root), count, shape, seed)
    if name == "photos":
        return patches(sample_photos(), count, shape, seed)
    if name in _PHOTOGRAPHS:
        files = [file for material in _PHOTOGRAPHS[name] for file in _material(material, root)]
        return patches(open_photos(files, root), count, shape, seed)
    if family == "photos" and argument:
        path, options = split_options(argument, OPTIONS, "option of a folder of photographs")
        photos = photo_folder(Path(path).expanduser(), PictureRules.of(options, name))
        return patches(photos, count, shape, seed)
    raise unknown_name("query pool", name, POOLS)


def _other_set(
    name: str, other: Dataset, victim: Dataset, count: int, seed: int, root: Path, shape: Shape
) -> QueryPool:
    if other.overlaps(victim):
        raise InputError(
            f"the pool {name!r} shares images with the victim's set {victim.name!r}. "
            "Use the pool 'in', or choose other classes."
        )
    splits = [load(other.name, split, root)[0] for split in ("train", "val", "pool")]
    images = fit(_draw(name, np.concatenate(splits), count, seed), shape)
    same_set = other.source.family == victim.source.family
    return QueryPool(name, OUT_OF_DISTRIBUTION, images, "disjoint" if same_set else "foreign")


def _mixed(name: str, dataset: str, count: int, seed: int, root: Path, shape: Shape) -> QueryPool:
    few, share, rest = parse_mix(name)
    mask = places(count, share, seed)
    # One image even where its place is not reached: a bad name is refused at any count.
    parts = [
        query_pool(pool, dataset, max(1, int(of.sum())), seed, root, shape)
        for pool, of in ((few, mask), (rest, ~mask))
    ]
    images = scatter(
        mask, *(p.images[: of.sum()] for p, of in zip(parts, (mask, ~mask), strict=True))
    )
    kinds = {part.kind for part in parts}
    kind = next(k for k in (IN_DISTRIBUTION, OUT_OF_DISTRIBUTION, DATA_FREE) if k in kinds)
    return QueryPool(name, kind, images, "mixed")


def check_unseen(trained: str, pool: str) -> None:
    """Refuse a query pool whose material the victim was trained on as outliers.

    Raises:
        InputError: the two pools share material, named.

    Example:
        >>> check_unseen("backgrounds", "wallpapers")
    """
    shared = _materials(trained) & _materials(pool)
    if shared:
        raise InputError(
            f"the victim was trained on outliers of {trained!r}, which the pool {pool!r} shares "
            f"({', '.join(sorted(shared))}): an attack with it would flatter the defence. Take "
            "another pool."
        )


def _materials(name: str) -> frozenset[str]:
    if name.startswith("mix:"):
        few, _, rest = parse_mix(name)
        return _materials(few) | _materials(rest)
    return frozenset(_PHOTOGRAPHS.get(name, (name,)))


def fit(images: Pixels, shape: Shape) -> Pixels:
    """Images (N, C, H, W) resized, and grey (ITU-R 601 luma) or RGB, as ``shape`` has it.

    Raises:
        ToolMissingError: Pillow is not installed, and sizes or channels differ.
    """
    if images.shape[1:] == shape:
        return images
    require("PIL")
    from PIL import Image

    pictures = (Image.fromarray(i[0] if len(i) == 1 else i.transpose(1, 2, 0)) for i in images)
    return stack(pictures, len(images), shape)


def _draw(name: str, images: Pixels, count: int, seed: int) -> Pixels:
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


_MIX = re.compile(r"(?P<few>.+?):(?P<share>\d*\.\d+),(?P<rest>.+)")


def parse_mix(name: str) -> tuple[str, float, str]:
    """``mix:POOL:SHARE,POOL`` as the first pool, its share and the second pool.

    Raises:
        InputError: not of that form, a share outside 0 to 1, or twice the same pool.

    Example:
        >>> parse_mix("mix:in:0.05,dataset:cifar10:0,1")
        ('in', 0.05, 'dataset:cifar10:0,1')
    """
    match = _MIX.fullmatch(name.removeprefix("mix:"))
    if match is None or not 0 < float(match["share"]) < 1 or match["few"] == match["rest"]:
        raise InputError(
            f"the pool {name!r} is no mixture. Write mix:POOL:SHARE,POOL with two pools and a "
            "share between 0 and 1, such as mix:in:0.05,wallpapers."
        )
    return match["few"], float(match["share"]), match["rest"]


def places(count: int, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which of ``count`` images come from the pool that has ``share``: bool (count,).

    One at a random place in every 1/share images, so any beginning holds its share to one
    image, and a smaller count is the beginning of a larger one.
    """
    blocks = math.ceil(count * share) + 1
    edges = np.ceil(np.arange(blocks + 1) / share).astype(np.int64)
    chance = np.random.default_rng(seed).random(blocks)
    chosen = edges[:-1] + (chance * np.diff(edges)).astype(np.int64)
    mask = np.zeros(int(edges[-1]), dtype=np.bool_)
    mask[chosen] = True
    return mask[:count]


def scatter(mask: npt.NDArray[np.bool_], few: Pixels, rest: Pixels) -> Pixels:
    """``few`` where ``mask`` is true, ``rest`` elsewhere, each in its own order."""
    out = np.empty((len(mask), *(few if len(few) else rest).shape[1:]), dtype=np.uint8)
    out[mask], out[~mask] = few, rest
    return out

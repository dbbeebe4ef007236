"""Patches of photographs: natural textures and shapes, unlabelled."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from divqat_brevitas.data.arrays import Pixels, require
from divqat_brevitas.data.pictures import list_pictures, read_pictures, say_skipped, stack
from divqat_brevitas.data.pixels import PictureRules, to_rgb
from divqat_brevitas.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

_FLAT = 12  # a patch with no channel of this standard deviation is sky or wall: drawn again
_TRIES = 20
_LONGEST = 1024  # pixels; photos are shrunk to this, patches are far smaller


def patches(
    photos: Sequence["Image.Image"], count: int, shape: tuple[int, int, int], seed: int
) -> Pixels:
    """Random square crops at random scale (8 % to 90 % of the shorter side), half mirrored.

    Args:
        photos: RGB pictures.
        count: number of patches.
        shape: (C, H, W); grey (ITU-R 601 luma) if C is 1.
        seed: the same photos and seed give the same patches.

    Returns:
        uint8 (count, C, H, W).
    """
    rng = np.random.default_rng(seed)
    return stack((_patch(photos, shape, rng) for _ in range(count)), count, shape)


def _patch(
    photos: Sequence["Image.Image"], shape: tuple[int, int, int], rng: np.random.Generator
) -> "Image.Image":
    from PIL import Image, ImageOps

    channels, height, width = shape
    for _ in range(_TRIES):
        photo = photos[int(rng.integers(len(photos)))]
        shorter = min(photo.size)
        side = int(shorter * np.exp(rng.uniform(np.log(0.08), np.log(0.9))))
        side = min(max(side, height, width), shorter)
        x, y = (int(rng.integers(extent - side + 1)) for extent in photo.size)
        box = (x, y, x + side, y + side)
        patch = photo.resize((width, height), Image.Resampling.BOX, box=box)
        patch = patch.convert("L" if channels == 1 else "RGB")
        if rng.random() < 0.5:
            patch = ImageOps.mirror(patch)
        if np.asarray(patch).std(axis=(0, 1)).max() >= _FLAT:
            break
    return patch


def sample_photos() -> list["Image.Image"]:
    """The two photographs in scikit-learn: a temple and a flower (CC BY, see its licence file).

    Raises:
        ToolMissingError: scikit-learn or Pillow is not installed.
    """
    require("PIL")
    require("sklearn.datasets")
    from PIL import Image
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(photo) for photo in load_sample_images().images]


def photo_folder(folder: Path, rules: PictureRules) -> list["Image.Image"]:
    """All photographs below a folder, at most 1024 pixels long.

    Hidden folders and other files are skipped; one warning says how many.

    Args:
        folder: searched with its subfolders.
        rules: how values and transparency become RGB.

    Raises:
        InputError: no such folder, no pictures in it, or one that cannot be read.
        ToolMissingError: Pillow is not installed.
    """
    found, skipped = list_pictures(folder) if folder.is_dir() else ([], [])
    if not found:
        raise InputError(f"{folder} holds no pictures. Give a folder of photographs.")
    say_skipped(folder, skipped)
    return open_photos(found, folder, rules)


def one_of_each(members: dict[str, bytes]) -> dict[str, bytes]:
    """One size of every picture that has several, at most 1024 pixels long, as PNG.

    Args:
        members: picture files by full name, ``.../PICTURE/contents/FOLDER/WIDTHxHEIGHT.png``.

    Returns:
        By ``PICTURE-FOLDER.png``: the smallest there is.

    Raises:
        ValueError: a name of another form, or a file that is no picture.
        ToolMissingError: Pillow is not installed.
    """
    require("PIL")
    from PIL import Image

    sizes: dict[str, dict[int, bytes]] = {}
    for name, content in members.items():
        *_, picture, _contents, folder, file = name.split("/")
        width, height = (int(side) for side in file.partition(".")[0].split("x"))
        sizes.setdefault(f"{picture}-{folder}.png", {})[width * height] = content
    found = {}
    for name, by_size in sizes.items():
        with Image.open(io.BytesIO(by_size[min(by_size)])) as file_:
            small = to_rgb(file_, PictureRules(), name).rgb
        small.thumbnail((_LONGEST, _LONGEST))
        out = io.BytesIO()
        small.save(out, "PNG")
        found[name] = out.getvalue()
    return found


def open_photos(
    paths: Sequence[Path], folder: Path, rules: PictureRules | None = None
) -> list["Image.Image"]:
    """Decode photographs to RGB, at most 1024 pixels long.

    Args:
        paths: picture files below ``folder``.
        folder: for messages.
        rules: how values and transparency become RGB; None: the defaults.

    Raises:
        InputError: a file that is no picture, named.
        ToolMissingError: Pillow is not installed.
    """
    return list(read_pictures(paths, rules or PictureRules(), folder, _LONGEST))

"""Picture files: find them, decode them readably, fit them to one shape."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from divqat_brevitas.data.arrays import Images, require
from divqat_brevitas.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
)  # torchvision's


def find_pictures(folder: Path) -> list[Path]:
    """All picture files below ``folder``, in an order that depends on their names alone."""
    found = [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
    return sorted(found, key=lambda p: p.relative_to(folder).as_posix())


def open_picture(path: Path, longest: int | None = None) -> "Image.Image":
    """Decode a picture to RGB, shrunk to at most ``longest`` pixels a side if given.

    Raises:
        InputError: the file is no picture.
        ToolMissingError: Pillow is not installed.
    """
    require("PIL")
    from PIL import Image

    try:
        with Image.open(path) as file:
            if longest:
                file.draft("RGB", (longest, longest))  # JPEG decodes smaller, and faster
            picture = file.convert("RGB")
    except Exception as e:  # Pillow's decoders raise many kinds on damaged files
        raise InputError(
            f"{path} cannot be read as a picture ({type(e).__name__}: {e}). Remove or replace it."
        ) from e
    if longest:
        picture.thumbnail((longest, longest))
    return picture


def stack(pictures: Iterable["Image.Image"], count: int, shape: tuple[int, int, int]) -> Images:
    """Squeeze ``count`` pictures to ``shape``, RGB or grey (ITU-R 601 luma): uint8 (N, C, H, W).

    Raises:
        InputError, ToolMissingError: from the iterable.
    """
    channels, height, width = shape
    out = np.empty((count, height, width, channels), dtype=np.uint8)
    for i, picture in enumerate(pictures):
        plain = picture.convert("L" if channels == 1 else "RGB")
        if plain.size != (width, height):
            plain = plain.resize((width, height))  # antialiased bicubic
        out[i] = np.asarray(plain).reshape(height, width, channels)
    return np.ascontiguousarray(out.transpose(0, 3, 1, 2))

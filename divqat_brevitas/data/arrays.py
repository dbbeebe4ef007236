"""Types of data sources: a description, and labels with images on demand."""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import InputError, ToolMissingError
from divqat_brevitas.short_repr import ShortRepr

Pixels = npt.NDArray[np.uint8]
"""Images as they are stored: uint8 (N, C, H, W)."""
Labels = npt.NDArray[np.int64]
"""Class labels: int64 (N,)."""
Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


@dataclass(frozen=True)
class DatasetInfo(ShortRepr):
    """The description of a data set, without its pixels.

    Attributes:
        name: the name that loads it.
        classes: class names; the label is the index.
        shape: (channels, height, width) of one image.
    """

    name: str
    classes: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True)
class Part(ShortRepr):
    """One stored part of a set, such as the official train set.

    Attributes:
        labels: int64 (N,).
        take: returns the images of the given indices, uint8 (n, C, H, W); only these are read.
        groups: int64 (N,) or None. Images of one group (a video track) never go to two splits.
    """

    labels: Labels
    take: Callable[[Labels], Pixels]
    groups: Labels | None = None

    @staticmethod
    def of(images: Pixels, labels: Labels, classes: int, where: str) -> "Part":
        """Make a part of arrays, after checking that they belong together.

        Raises:
            InputError: different counts, no images, or a label outside 0..classes-1.
        """
        if len(images) != len(labels):
            raise InputError(
                f"{where}: {len(images)} images but {len(labels)} labels. "
                "The files do not belong together; get them again."
            )
        if not len(labels):
            raise InputError(f"{where}: holds no images.")
        if labels.min() < 0 or labels.max() >= classes:
            raise InputError(
                f"{where}: labels run from {labels.min()} to {labels.max()}, "
                f"expected 0 to {classes - 1}. The file is damaged or of another set."
            )
        return Part(labels, lambda index: np.ascontiguousarray(images[index]))


def default_root() -> Path:
    """The folder of data sets: $DIVQAT_DATA, else ``divqat`` in the user's cache folder."""
    if chosen := os.environ.get("DIVQAT_DATA"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "divqat"


def require(module: str, extra: str = "data") -> None:
    """Check that a package is installed.

    Raises:
        ToolMissingError: with the pip command that installs it.
    """
    try:
        importlib.import_module(module)
    except ImportError as e:
        raise ToolMissingError(
            f"the Python package {module!r} is not installed ({e}). "
            f"Run: pip install 'divqat[{extra}]'"
        ) from e

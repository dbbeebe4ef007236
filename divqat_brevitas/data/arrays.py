"""What data sources share: types, the data folder, splits that are the same on every machine."""

import importlib
import os
from collections.abc import Callable, Mapping
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


SEED = 20261122  # of the published splits; changing it changes every result


def permutation(count: int, seed: int) -> Labels:
    """A random order of 0..count-1 that no NumPy release may change.

    NumPy keeps the raw stream of a bit generator fixed for ever (NEP 19), but not the
    output of ``Generator.permutation``; so raw 64-bit words are sorted.
    """
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable").astype(np.int64)


def split_indices(
    labels: Labels, weights: Mapping[str, int], groups: Labels | None = None, seed: int = SEED
) -> dict[str, Labels]:
    """Disjoint, covering, stratified splits of a set.

    Every class is spread evenly over one line, which is then cut in proportion to
    ``weights``: a split's size is exact to one image, and so is each class within it. A
    split keeps the order of the line, so its first images are stratified too. Images of one group,
    which has one label, stay together; sizes are then exact to one group. Returned are int64
    indices into ``labels``.

    Example:
        >>> {k: len(v) for k, v in split_indices(np.arange(60) % 10, {"a": 2, "b": 1}).items()}
        {'a': 40, 'b': 20}
    """
    if groups is None:
        groups = np.arange(len(labels))
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    unit_labels = labels[first]

    order = permutation(len(first), seed)
    place = np.empty(len(first))  # of each unit on the line, in [0, 1)
    for label in np.unique(unit_labels):
        of_class = order[unit_labels[order] == label]
        place[of_class] = (np.arange(len(of_class)) + 0.5) / len(of_class)
    line = order[np.argsort(place[order], kind="stable")]

    rank = np.empty(len(line), dtype=np.int64)
    rank[line] = np.arange(len(line))
    in_line = np.argsort(rank[member], kind="stable")  # images, group by group
    shares = np.cumsum([0, *weights.values()])
    cuts = (len(line) * shares + shares[-1] // 2) // shares[-1]
    bounds = np.searchsorted(rank[member][in_line], cuts)
    return {name: in_line[bounds[i] : bounds[i + 1]] for i, name in enumerate(weights)}

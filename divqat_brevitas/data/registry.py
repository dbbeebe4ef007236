"""Data sets by name: describe them, load a split, list what is available."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from divqat_brevitas.data.arrays import (
    DatasetInfo,
    Labels,
    Part,
    Pixels,
    default_root,
    split_indices,
)
from divqat_brevitas.data.cache import is_stored
from divqat_brevitas.data.formats import class_folders, image_folder
from divqat_brevitas.data.packages import PACKAGES
from divqat_brevitas.data.pixels import OPTIONS, PictureRules, split_options
from divqat_brevitas.data.sources import AS_FOLDERS, SOURCES, Layout, Source
from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.plugins import Registry
from divqat_brevitas.short_repr import ShortRepr

DATASETS: Registry[Source] = Registry(
    "data set",
    "divqat.datasets",
    SOURCES,
    fits=lambda found: isinstance(found, Source),
    expected="a Source of divqat_brevitas.data.sources",
    reserved=(*PACKAGES, *AS_FOLDERS),
)
"""All data sets by name, those of installed packages among them, and where their pixels lie."""

SPLITS: tuple[str, ...] = ("train", "val", "test", "pool")
_OFFICIAL = "official-train"
_FOLDER = "imagefolder:"


@dataclass(frozen=True)
class Dataset(ShortRepr):
    """A resolved name: its source and, for a class subset, the selected labels."""

    name: str
    source: Source
    kept: tuple[int, ...] | None

    @property
    def info(self) -> DatasetInfo:
        """Classes (of the subset) and shape."""
        classes = self.source.classes
        if self.kept is not None:
            classes = tuple(classes[i] for i in self.kept)
        return DatasetInfo(self.name, classes, self.source.shape)

    def overlaps(self, other: "Dataset") -> bool:
        """Whether the two sets share images: one family, and a class in common."""
        every = tuple(range(len(self.source.classes)))
        common = set(self.kept or every) & set(other.kept or every)
        return self.source.family == other.source.family and bool(common)


class Availability(NamedTuple):
    """One row of ``divqat doctor``: a set or material, its status, and how to get it."""

    name: str
    status: str
    how: str


def resolve(name: str) -> Dataset:
    """Find the source of a data set name.

    Raises:
        InputError: unknown name, classes or option.
    """
    if name.startswith(_FOLDER):
        return _resolve_folder(name)
    base, colon, classes = name.partition(":")
    if base in AS_FOLDERS:
        raise InputError(
            f"{base!r} is loaded as an image folder: {AS_FOLDERS[base]}, with its path."
        )
    if base not in DATASETS:
        raise unknown_name("data set", base, (*DATASETS, f"{_FOLDER}PATH"))
    source = DATASETS[base]
    source = replace(source, family=source.family or base)
    kept = _class_list(name, classes, len(source.classes)) if colon else None
    return Dataset(name, source, kept)


def dataset_info(name: str) -> DatasetInfo:
    """Class names and image shape of a data set, without reading its pixels.

    Raises:
        InputError: no such set.

    Example:
        >>> dataset_info("cifar10:0-4").classes
        ('airplane', 'automobile', 'bird', 'cat', 'deer')
    """
    return resolve(name).info


def load(name: str, split: str, root: Path | None = None) -> tuple[Pixels, Labels]:
    """Images and labels of one split.

    The splits "train", "val", "test" and "pool" are disjoint and the same on every machine.
    "test" is the official test set where there is one; "pool" stands for unlabelled images
    in-distribution images of an attacker. Of an official train set, train/val/pool take
    45/5/10 sixtieths (MNIST and its kin) or 8/1/1 tenths (the others); "official-train" is
    all of it. Stratified by :func:`divqat_brevitas.data.arrays.split_indices`.

    Args:
        name: one of ``DATASETS``; with some classes only, relabelled from 0: "cifar10:0-4",
            "cifar10:0,1,3"; or "imagefolder:PATH", a folder with train/ and test/ (val/ is
            optional, and is the test set if there is no test/), each with one folder of
            pictures a class; options as "imagefolder:PATH?size=32&channels=3&classes=0-4".
            Hidden and empty folders are no classes. Transparent pixels show a white background,
            or that of "background=black". Pictures of one channel map their range to 0..255: 16
            bits from 0..65535, float from 0..1, or all of more than 8 bits from "range=0..4095",
            which integers of 32 bits need. Of several frames the first is used; EXIF orientation
            is not applied. Tiny-ImageNet and CUB-200 load so; asking for "tiny-imagenet" or
            "cub-200" says how to arrange their folders.
        split: "train", "val", "test", "pool" or "official-train".
        root: data folder; default: $DIVQAT_DATA, else the user's cache.

    Returns:
        Images uint8 (N, C, H, W) and labels int64 (N,).

    Raises:
        InputError: unknown name or split, the set is not there (with how to get it), or its
            files are damaged.
        ToolMissingError: the Python package that holds or decodes it is not installed.

    Example:
        >>> images, labels = load("digits", "train")
        >>> images.shape, images.dtype, labels.dtype
        ((1000, 1, 8, 8), dtype('uint8'), dtype('int64'))
    """
    dataset = resolve(name)
    source = dataset.source
    root = default_root() if root is None else Path(root)
    official = (_OFFICIAL,) if source.main == "train" else ()
    if split not in (*SPLITS, *official):
        raise unknown_name("split", split, (*SPLITS, *official))
    layout = source.layout(root) or _absent(dataset, root)

    cut = split in source.weights
    part = layout.read(root, source.main if cut or split in official else split)
    if cut:
        index = split_indices(part.labels, source.weights, part.groups)[split]
    else:
        index = np.arange(len(part.labels))
    if dataset.kept is None:
        return part.take(index), part.labels[index]
    kept = np.array(dataset.kept)
    index = index[np.isin(part.labels[index], kept)]
    return part.take(index), np.searchsorted(kept, part.labels[index]).astype(np.int64)


def available(root: Path | None = None) -> list[Availability]:
    """List what this machine has: one row for each data set or query material.

    The status is "ready" or "missing"; pixels are not checked.
    """
    root = default_root() if root is None else Path(root)
    rows = [
        Availability(name, "ready" if source.layout(root) else "missing", source.how)
        for name, source in DATASETS.items()
    ]
    rows += [
        Availability(
            name, "ready" if is_stored(root, name) else "missing", f"run: divqat data fetch {name}"
        )
        for name in PACKAGES
        if name not in DATASETS
    ]
    return rows


def _absent(dataset: Dataset, root: Path) -> Layout:
    if dataset.source.main == "all":  # inside a package: reading it names the package
        return dataset.source.layouts[0]
    raise InputError(
        f"the data set {dataset.name!r} is not in {root}. To get it, {dataset.source.how}."
    )


def _class_list(name: str, text: str, count: int) -> tuple[int, ...]:
    """Parse "0-4" or "0,1,3": sorted class indices."""
    kept: set[int] = set()
    for item in text.split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", item)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < count:
            raise InputError(
                f"{name!r}: {item!r} is no choice of classes. Write 0-4 or 0,1,3 with numbers "
                f"from 0 to {count - 1}."
            )
        kept.update(range(first, last + 1))
    return tuple(sorted(kept))


def _resolve_folder(name: str) -> Dataset:
    known = ("size", "channels", "classes", *OPTIONS)
    path, options = split_options(name.removeprefix(_FOLDER), known, "image folder option")
    rules = PictureRules.of(options, name)
    size, channels = options.get("size", "32"), options.get("channels", "3")
    if not re.fullmatch(r"[1-9]\d{0,3}", size) or channels not in ("1", "3"):
        raise InputError(
            f"{name!r}: size is a number of pixels (such as 32), channels 1 (grey) or 3."
        )
    shape = (int(channels), int(size), int(size))
    folder = Path(path).expanduser()
    classes = class_folders(folder / "train")
    has_test, has_val = (folder / "test").is_dir(), (folder / "val").is_dir()
    if not (has_test or has_val):
        raise InputError(f"{folder} has no test/ (nor val/) beside train/: nothing to test on.")

    def read(root: Path, part: str) -> Part:
        del root  # the name holds the path
        sub = "val" if part == "test" and not has_test else part
        return image_folder(folder / sub, classes, shape, rules)

    source = Source(
        classes=classes,
        shape=shape,
        weights={"train": 9, "pool": 1}
        if has_test and has_val
        else {"train": 8, "val": 1, "pool": 1},
        layouts=(Layout(lambda root: True, read),),
        how=f"make {folder}/train and {folder}/test",
        family=str(folder.resolve()),
    )
    kept = _class_list(name, options["classes"], len(classes)) if "classes" in options else None
    return Dataset(name, source, kept)

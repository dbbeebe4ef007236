"""Sets that are folders of picture files: any ImageFolder, and GTSRB."""

import csv
from pathlib import Path

import numpy as np

from divqat_brevitas.data.arrays import Part
from divqat_brevitas.data.pictures import SUFFIXES, find_pictures, open_picture, stack
from divqat_brevitas.errors import InputError


def _part(paths: list[Path], labels: list[int], shape: tuple[int, int, int]) -> Part:
    return Part(
        np.array(labels, dtype=np.int64),
        lambda index: stack((open_picture(paths[i]) for i in index), len(index), shape),
    )


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the class folders in ``folder``, sorted.

    Raises:
        InputError: there is no such folder, or it has no folder in it.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder. An image folder has train/ and test/, "
            "each with one folder of pictures a class."
        )
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir()))
    if not names:
        raise InputError(f"{folder} has no class folders in it (one folder of pictures a class).")
    return names


def image_folder(folder: Path, classes: tuple[str, ...], shape: tuple[int, int, int]) -> Part:
    """One split of an image folder: ``folder/CLASS/**/picture``.

    Raises:
        InputError: a class folder that is not in ``classes``, or no pictures at all.
    """
    if unknown := sorted(set(class_folders(folder)) - set(classes)):
        raise InputError(
            f"{folder} has the class folder {unknown[0]!r}, which train/ does not have."
        )
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = find_pictures(folder / name)
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise InputError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))}).")
    return _part(paths, labels, shape)


def gtsrb_train(folder: Path, shape: tuple[int, int, int]) -> Part:
    """GTSRB's training images, ``folder/000CC/TTTTT_NNNNN.ppm``.

    One track (TTTTT of a class) is about 30 frames of the same sign; a track is a group, so
    that a split never holds a near-copy of another split's image.
    """
    classes = tuple(f"{i:05d}" for i in range(43))
    part = image_folder(folder, classes, shape)
    tracks = [
        f"{p.parent.name}/{p.stem.split('_')[0]}"
        for name in classes
        for p in find_pictures(folder / name)
    ]
    _, groups = np.unique(tracks, return_inverse=True)
    return Part(part.labels, part.take, groups.astype(np.int64))


def gtsrb_test(folder: Path, table: Path, shape: tuple[int, int, int]) -> Part:
    """GTSRB's test images, listed with ``ClassId`` in a semicolon-separated table.

    Raises:
        InputError: the table is missing or malformed, or an image it lists is missing.
    """
    try:
        with table.open(newline="", encoding="utf-8") as f:
            rows = [(r["Filename"], int(r["ClassId"])) for r in csv.DictReader(f, delimiter=";")]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as e:
        raise InputError(
            f"{table} cannot be read as GTSRB's test table ({type(e).__name__}: {e}). "
            "It has the columns Filename and ClassId, separated by semicolons."
        ) from e
    if not rows or any(not 0 <= label < 43 for _, label in rows):
        raise InputError(f"{table} lists no images, or classes outside 0 to 42.")
    # The name alone: a table cannot point outside its folder.
    return _part([folder / Path(name).name for name, _ in rows], [c for _, c in rows], shape)

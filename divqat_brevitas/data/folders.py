"""Sets that are folders of picture files: any ImageFolder, and GTSRB."""

import csv
from pathlib import Path

import numpy as np

from divqat_brevitas.data.arrays import Labels, Part, Pixels, Shape
from divqat_brevitas.data.pictures import (
    SUFFIXES,
    has_pictures,
    is_hidden,
    list_pictures,
    read_pictures,
    say_skipped,
    stack,
)
from divqat_brevitas.data.pixels import PictureRules
from divqat_brevitas.errors import InputError

_PLAIN = PictureRules()


def _part(
    folder: Path,
    paths: list[Path],
    labels: list[int],
    shape: Shape,
    rules: PictureRules = _PLAIN,
) -> Part:
    def take(index: Labels) -> Pixels:
        pictures = read_pictures([paths[i] for i in index], rules, folder)
        return stack(pictures, len(index), shape)

    return Part(np.array(labels, dtype=np.int64), take)


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the class folders in ``folder``, sorted: not hidden, with a picture in each.

    Raises:
        InputError: there is no such folder, or it has no class folder in it.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder. An image folder has train/ and test/, "
            "each with one folder of pictures a class."
        )
    names = tuple(
        sorted(
            p.name
            for p in folder.iterdir()
            if p.is_dir() and not is_hidden(p.name) and has_pictures(p)
        )
    )
    if not names:
        raise InputError(
            f"{folder} has no class folders in it (one folder of pictures a class; hidden and "
            f"empty ones do not count). Pictures are {', '.join(sorted(SUFFIXES))}."
        )
    return names


def image_folder(
    folder: Path, classes: tuple[str, ...], shape: Shape, rules: PictureRules = _PLAIN
) -> Part:
    """One split of an image folder: ``folder/CLASS/**/picture``.

    Hidden and empty folders and other files are skipped; one warning says how many.

    Args:
        folder: such as ``train``.
        classes: names of the class folders; the label is the index.
        shape: (C, H, W) of the images.
        rules: how values and transparency become RGB.

    Raises:
        InputError: a class folder that is not in ``classes``, or no pictures at all.
    """
    if unknown := sorted(set(class_folders(folder)) - set(classes)):
        raise InputError(
            f"{folder} has the class folder {unknown[0]!r}, which train/ does not have."
        )
    paths, labels = [], []
    skipped = [p for p in sorted(folder.iterdir()) if p.name not in classes]
    for label, name in enumerate(classes):
        pictures, others = list_pictures(folder / name)
        paths += pictures
        labels += [label] * len(pictures)
        skipped += others
    say_skipped(folder, skipped)
    return _part(folder, paths, labels, shape, rules)


def gtsrb_train(folder: Path, shape: Shape) -> Part:
    """GTSRB's training images, ``folder/000CC/TTTTT_NNNNN.ppm``.

    One track (TTTTT of a class) is about 30 frames of the same sign; a track is a group, so
    that a split never holds a near-copy of another split's image.
    """
    classes = tuple(f"{i:05d}" for i in range(43))
    part = image_folder(folder, classes, shape)
    tracks = [
        f"{p.parent.name}/{p.stem.split('_')[0]}"
        for name in classes
        for p in list_pictures(folder / name).pictures
    ]
    _, groups = np.unique(tracks, return_inverse=True)
    return Part(part.labels, part.take, groups.astype(np.int64))


def gtsrb_test(folder: Path, table: Path, shape: Shape) -> Part:
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
    paths = [folder / Path(name).name for name, _ in rows]
    return _part(folder, paths, [label for _, label in rows], shape)

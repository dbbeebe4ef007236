"""Files of the user's own disk: formats of the classic sets, folders of pictures, and GTSRB.

Any malformed byte is an InputError.
"""

import csv
import gzip
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from divqat_brevitas.data.arrays import Labels, Part, Pixels, Shape, require
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


def _damaged(where: str, what: str) -> InputError:
    return InputError(
        f"{where}: {what}. The file is truncated, damaged or something else; get it again."
    )


MAX_BYTES = 2**30  # of one unpacked file: five times the largest of the classic sets


def unpack_gzip(data: bytes) -> bytes:
    """Unpack a gzip file of at most ``MAX_BYTES``: a small one can hold gigabytes of zeros.

    Raises:
        ValueError: it holds more.
        OSError, EOFError, zlib.error: it is damaged.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"unpacked it is larger than {MAX_BYTES} bytes")
    return content


def read_bytes(path: Path) -> bytes:
    """The content of ``path``, or of ``path.gz`` unpacked, whichever is there.

    Raises:
        InputError: missing, unreadable, a broken gzip file, or larger than ``MAX_BYTES``.
    """
    packed = path.with_name(path.name + ".gz")
    try:
        path = path if path.exists() or not packed.exists() else packed
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES} bytes")
        return path.read_bytes() if path is not packed else unpack_gzip(packed.read_bytes())
    except FileNotFoundError as e:
        raise InputError(f"{path} does not exist (nor does {packed.name}).") from e
    except (OSError, EOFError, ValueError, zlib.error) as e:
        raise _damaged(str(path), f"cannot be read ({e})") from e


def parse_idx(data: bytes, where: str) -> Pixels:
    """Parse IDX, MNIST's own format: uint8 array of 1 to 3 dimensions.

    A 4-byte magic (0, 0, 8 for unsigned byte, number of dimensions), each dimension as a
    big-endian 32-bit number, then the values.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), "labels")
        array([7, 9], dtype=uint8)
    """
    if len(data) < 4 or data[:3] != b"\0\0\x08" or not 1 <= data[3] <= 3:
        raise _damaged(where, "does not begin like an IDX file of unsigned bytes")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise _damaged(where, "ends inside its header")
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4)]
    expected = start + int(np.prod(shape, dtype=object))
    if len(data) != expected:
        raise _damaged(where, f"holds {len(data)} bytes where its header promises {expected}")
    if 0 in shape:  # beside it the others could promise anything
        raise _damaged(where, f"has the shape {shape}, which holds nothing")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def idx_pair(images: bytes, labels: bytes, where: str) -> tuple[Pixels, Labels]:
    """Images (N, 1, 28, 28) and labels (N,) of an MNIST-like pair of IDX files."""
    x, y = parse_idx(images, f"{where} images"), parse_idx(labels, f"{where} labels")
    if x.ndim != 3 or x.shape[1:] != (28, 28) or y.ndim != 1:
        raise _damaged(where, f"images {x.shape} and labels {y.shape} are not MNIST-like")
    return x[:, None], y.astype(np.int64)


def parse_cifar_binary(data: bytes, where: str, label_bytes: int = 1) -> tuple[Pixels, Labels]:
    """Parse CIFAR's binary version: rows of label bytes, then 3072 bytes of one CHW image."""
    row = label_bytes + 3072
    if not data or len(data) % row:
        raise _damaged(where, f"holds {len(data)} bytes, not a multiple of {row}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, row)
    images = rows[:, label_bytes:].reshape(-1, 3, 32, 32)
    return images, rows[:, label_bytes - 1].astype(np.int64)


def parse_svhn(path: Path) -> tuple[Pixels, Labels]:
    """Read SVHN's MATLAB file: X uint8 (32, 32, 3, N), y (N, 1) with 10 for the digit 0.

    Raises:
        InputError: not such a file.
        ToolMissingError: SciPy is not installed.
    """
    require("scipy.io")
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(path, variable_names=["X", "y"])
        images, labels = content["X"], content["y"]
        ok = images.dtype == np.uint8 and images.shape[:3] == (32, 32, 3) and images.ndim == 4
        labels = labels.reshape(-1).astype(np.int64) % 10
    except Exception as e:  # loadmat raises many kinds on bytes that are no MATLAB file
        raise _damaged(str(path), f"is not SVHN's MATLAB file ({type(e).__name__}: {e})") from e
    if not ok:
        raise _damaged(str(path), f"X is {images.dtype} {images.shape}, not uint8 (32, 32, 3, N)")
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels


_PLAIN = PictureRules()


def _part(
    folder: Path, paths: list[Path], labels: list[int], shape: Shape, rules: PictureRules = _PLAIN
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

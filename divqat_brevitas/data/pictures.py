"""Picture files: find them, decode them readably, fit them to one shape, cut patches of them."""

import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from divqat_brevitas.data.arrays import Pixels, require
from divqat_brevitas.data.pixels import ConvertedPicture, PictureRules, to_rgb
from divqat_brevitas.errors import DivQATWarning, InputError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
)  # torchvision's
_DARK = 1 / 16  # pictures that use less than this share of their range: 12 bits in 16, or 8
_said: set[str] = set()


class PictureWarning(DivQATWarning):
    """Files that are skipped, or pictures of which something is not used."""


class Listing(NamedTuple):
    """What a folder holds: the pictures, sorted by name, and what is not read."""

    pictures: list[Path]
    skipped: list[Path]


def list_pictures(folder: Path) -> Listing:
    """All picture files below ``folder``, in an order that depends on their names only.

    Hidden files and folders (``.ipynb_checkpoints``, ``.DS_Store``), ``__MACOSX``, links to
    folders and other files are skipped.

    Raises:
        InputError: a folder cannot be read.
    """
    pictures: list[Path] = []
    skipped: list[Path] = []
    for path, is_picture in _walk(folder):
        (pictures if is_picture else skipped).append(path)
    return Listing(
        *(sorted(p, key=lambda p: p.relative_to(folder).as_posix()) for p in (pictures, skipped))
    )


def has_pictures(folder: Path) -> bool:
    """Whether a picture file lies anywhere below ``folder``; stops at the first.

    Raises:
        InputError: a folder cannot be read.
    """
    return any(is_picture for _, is_picture in _walk(folder))


def is_hidden(name: str) -> bool:
    """Whether a system or an editor made the file or folder of this name.

    Example:
        >>> [is_hidden(name) for name in (".ipynb_checkpoints", "__MACOSX", "ant")]
        [True, True, False]
    """
    return name.startswith(".") or name == "__MACOSX"


def _walk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Each picture file with True; each other file and each folder left out with False."""

    def refuse(e: OSError) -> None:
        if isinstance(e, FileNotFoundError):  # a class that one split does not have
            return
        raise InputError(f"{e.filename} cannot be read ({e.strerror}).") from e

    for parent, folders, files in os.walk(folder, onerror=refuse):
        here = Path(parent)
        left_out = [name for name in folders if is_hidden(name) or (here / name).is_symlink()]
        folders[:] = [name for name in folders if name not in left_out]
        for name in left_out:
            yield here / name, False
        for name in files:
            path = here / name
            fits = path.suffix.lower() in SUFFIXES and not is_hidden(name)
            yield path, fits and path.is_file()


def say_skipped(folder: Path, skipped: Sequence[Path]) -> None:
    """Warn once, in one line, of the files and folders below ``folder`` that are not read."""
    if skipped:
        _say(
            f"{folder}: files and folders skipped: {_some(skipped, folder)}. They are hidden, hold "
            f"no picture, or are not of a kind that is read ({', '.join(sorted(SUFFIXES))})."
        )


def read_pictures(
    paths: Sequence[Path], rules: PictureRules, folder: Path, longest: int | None = None
) -> Iterator["Image.Image"]:
    """Decode pictures to RGB one by one.

    When all are read, one line each warns of files with several frames (the first is used), of
    drawings that cannot be seen on their background, and of pictures that are all dark because
    their values stay far below the range of their mode.

    Raises:
        InputError: a file is no picture, or does not fit the rules.
        ToolMissingError: Pillow is not installed.
    """
    several: list[Path] = []
    vanished: list[Path] = []
    peaks: list[float] = []
    for path in paths:
        pixels, frames = _open(path, rules, longest)
        several += [path] * (frames > 1)
        vanished += [path] * pixels.vanished
        peaks += [] if pixels.peak is None else [pixels.peak]
        if longest:
            pixels.rgb.thumbnail((longest, longest))
        yield pixels.rgb
    if several:
        _say(
            f"{folder}: pictures with several frames: {_some(several, folder)}. Only the first "
            "frame of each is used."
        )
    if vanished:
        _say(
            f"{folder}: pictures of which nothing is to be seen on the background "
            f"{rules.background!r}: {_some(vanished, folder)}. Choose another colour with "
            "?background=COLOUR in the set's name."
        )
    if peaks and max(peaks) < _DARK:
        _say(
            f"{folder}: {len(peaks)} pictures of more than 8 bits use {max(peaks):.2%} of their "
            "range at most, so they are almost black. If they hold a smaller range, declare it "
            "with ?range=LOW..HIGH in the set's name."
        )


def _open(path: Path, rules: PictureRules, longest: int | None) -> tuple[ConvertedPicture, int]:
    """A picture and how many frames its file holds. EXIF orientation is not applied."""
    require("PIL")
    from PIL import Image

    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes). Remove or replace it.")
        with Image.open(path) as file:
            # The further images in a camera's JPEG are previews of the first.
            frames = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)
            if longest:
                file.draft("RGB", (longest, longest))  # JPEG decodes smaller, and faster
            return to_rgb(file, rules, str(path)), frames
    except InputError:
        raise
    except Exception as e:  # Pillow's decoders raise many kinds on damaged files
        raise InputError(
            f"{path} cannot be read as a picture ({type(e).__name__}: {e}). Remove or replace it."
        ) from e


def _some(paths: Sequence[Path], folder: Path) -> str:
    """How many, and the first three names."""
    names = ", ".join(p.relative_to(folder).as_posix() for p in paths[:3])
    return f"{len(paths)} ({names}{', ...' if len(paths) > 3 else ''})"


def _say(text: str) -> None:
    """Warn once in a process: a run loads a set in many of its stages."""
    if text not in _said:
        _said.add(text)
        warnings.warn(text, PictureWarning, stacklevel=3)


def stack(pictures: Iterable["Image.Image"], count: int, shape: tuple[int, int, int]) -> Pixels:
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


_FLAT = 12  # a patch with no channel of this standard deviation is sky or wall: drawn again
_TRIES = 20
_LONGEST = 1024  # pixels; photos are shrunk to this, patches are far smaller


def patches(
    photos: Sequence["Image.Image"], count: int, shape: tuple[int, int, int], seed: int
) -> Pixels:
    """Random square crops at random scale (8 % to 90 % of the shorter side), half mirrored."""
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

    Raises:
        InputError: a file that is no picture, named.
        ToolMissingError: Pillow is not installed.
    """
    return list(read_pictures(paths, rules or PictureRules(), folder, _LONGEST))

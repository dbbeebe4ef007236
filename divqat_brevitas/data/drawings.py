"""Emoji as query images: colour drawings on plain paper, unlike any photograph."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from divqat_brevitas.data.arrays import Pixels, require
from divqat_brevitas.data.pictures import stack
from divqat_brevitas.data.splits import permutation

if TYPE_CHECKING:
    from PIL import Image

SIDE = 64  # pixels of a stored drawing
_MARGIN = SIDE // 4  # paper around it, so that a crop may be larger or off its middle
# Emoji's five skin tones (Fitzpatrick modifiers), as they stand in file names.
_TONES = frozenset(("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"))


def sheets(members: dict[str, bytes], vendor: str) -> dict[str, Pixels]:
    """PNG drawings named by code points as two arrays: those without, then with a skin tone.

    Args:
        members: PNG files by name, such as ``1f44d-1f3fb.png``, 64x64.
        vendor: first part of the arrays' names.

    Returns:
        ``VENDOR-plain.npy`` and ``VENDOR-tones.npy``, uint8 (N, 64, 64, 4) in RGBA, without
        repetitions; the second is left out when it would be empty.

    Raises:
        ValueError: a drawing of another size, or a file that is no picture.
        ToolMissingError: Pillow is not installed.
    """
    require("PIL")
    from PIL import Image

    found: dict[str, dict[bytes, Pixels]] = {"plain": {}, "tones": {}}
    for name, content in members.items():
        with Image.open(io.BytesIO(content)) as file:
            drawing = np.asarray(file.convert("RGBA"))
        if drawing.shape != (SIDE, SIDE, 4):
            raise ValueError(f"{name} has the shape {drawing.shape}, not {(SIDE, SIDE, 4)}")
        kind = "tones" if _TONES & set(Path(name).stem.split("-")) else "plain"
        found[kind].setdefault(drawing.tobytes(), drawing)
    return {
        f"{vendor}-{kind}.npy": np.stack(list(drawings.values()))
        for kind, drawings in found.items()
        if drawings
    }


def drawings(paths: Sequence[Path], count: int, shape: tuple[int, int, int], seed: int) -> Pixels:
    """Drawings on paper of a random colour, at random size and place, half mirrored.

    Every drawing without a skin tone comes once, in random order, then those with one (three
    in five emoji are skin tones of the same people), then all again on other paper.

    Args:
        paths: the arrays of :func:`sheets`, stored.
        count: number of images.
        shape: (C, H, W); grey (ITU-R 601 luma) if C is 1.
        seed: equal seeds give equal images; a smaller count gives the first of them.

    Returns:
        uint8 (count, C, H, W).

    Raises:
        ToolMissingError: Pillow is not installed.

    Example:
        >>> np.save("smileys-plain.npy", np.full((9, 64, 64, 4), 200, np.uint8))
        >>> drawings([Path("smileys-plain.npy")], 4, (3, 32, 32), seed=0).shape
        (4, 3, 32, 32)
    """
    require("PIL")
    groups: list[list[Pixels]] = [[], []]
    for path in paths:
        tones = path.stem.endswith("-tones")
        groups[tones].append(np.load(path, mmap_mode="r", allow_pickle=False))
    chosen = _endless([group for group in groups if group], seed)
    rng = np.random.default_rng(seed)
    papers = (_on_paper(next(chosen), shape, rng) for _ in range(count))
    return stack(papers, count, shape)


def _endless(groups: list[list[Pixels]], seed: int) -> Iterator[Pixels]:
    """The drawings group by group, each group shuffled, again and again."""
    turn = 0
    while True:
        for arrays in groups:
            starts = np.cumsum([0, *map(len, arrays)])
            for i in permutation(int(starts[-1]), seed + turn):
                sheet = int(np.searchsorted(starts, i, side="right")) - 1
                yield arrays[sheet][i - starts[sheet]]
        turn += 1


def _on_paper(
    drawing: Pixels, shape: tuple[int, int, int], rng: np.random.Generator
) -> "Image.Image":
    from PIL import Image, ImageOps

    colour = tuple(int(v) for v in rng.integers(0, 256, 3))
    full = SIDE + 2 * _MARGIN
    paper = Image.new("RGB", (full, full), colour)
    picture = Image.fromarray(np.asarray(drawing))
    if rng.random() < 0.5:
        picture = ImageOps.mirror(picture)
    paper.paste(picture, (_MARGIN, _MARGIN), picture)
    side = rng.uniform(0.8, 1.4) * SIDE
    x, y = rng.uniform(0, full - side, 2)  # a corner of a face may be cut off, as in a photo
    return paper.resize((shape[2], shape[1]), box=(x, y, x + side, y + side))

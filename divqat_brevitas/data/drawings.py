"""Query images that are drawn here: letters, emoji on paper, and noise with shapes.

Every function returns uint8 (count, C, H, W), grey (ITU-R 601 luma) where C is 1. Equal seeds give
equal images, and a smaller count gives the first of them.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from divqat_brevitas.data.arrays import Pixels, permutation, require
from divqat_brevitas.data.pictures import stack
from divqat_brevitas.errors import InputError

if TYPE_CHECKING:
    from PIL import Image, ImageFont

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CANVAS = 96  # pixels of the square a glyph is drawn and warped on, before it is shrunk
_FACES = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif",
          "DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralItalic",
          "STIXGeneralBol", "cmss10", "cmtt10")  # fmt: skip


def letters(
    count: int, shape: tuple[int, int, int], seed: int, fonts: Sequence[Path] | None = None
) -> Pixels:
    """Draw random letters A-Z, a-z with random font, stroke, rotation, shear, size and place.

    Grey images are light on black like MNIST and its kin, one in ten dark on white; colour
    images have random ink and paper.

    Raises:
        InputError: none of ``fonts`` can draw letters.
        ToolMissingError: Pillow is not installed.
    """
    require("PIL")
    from PIL import Image

    rng = np.random.default_rng(seed)
    faces = _usable(fonts) if fonts is not None else _bundled()
    channels, height, width = shape
    out = np.empty((count, channels, height, width), dtype=np.uint8)
    glyphs: dict[tuple[int, str, int], Image.Image] = {}
    for i in range(count):
        key = (
            int(rng.integers(len(faces))),
            _LETTERS[rng.integers(len(_LETTERS))],
            int(rng.integers(4)),
        )
        if key not in glyphs:
            glyphs[key] = _glyph(faces[key[0]], key[1], key[2])
        warped = glyphs[key].transform(
            (_CANVAS, _CANVAS), Image.Transform.AFFINE, _affine(rng), Image.Resampling.BILINEAR
        )
        small = warped.resize((width, height), Image.Resampling.BOX)
        cover = np.asarray(small, dtype=np.float64) / 255
        paper, ink = _colours(rng, channels)
        blend = paper[:, None, None] + (ink - paper)[:, None, None] * cover
        out[i] = np.round(blend).astype(np.uint8)
    return out


def _affine(rng: np.random.Generator) -> tuple[float, ...]:
    """Pillow's coefficients: output pixel to input pixel, about the canvas centre."""
    angle, shear = rng.normal(0, 0.2), rng.uniform(-0.3, 0.3)
    size = rng.uniform(0.7, 1.3)  # the longer side fills about 1/2 to all of the image
    stretch = rng.uniform(0.8, 1.25)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = turn @ np.array([[1, shear], [0, 1]]) @ np.diag([stretch, 1 / stretch]) * size
    inverse = np.linalg.inv(forward)
    middle = _CANVAS / 2
    shift = middle - inverse @ (middle + rng.uniform(-0.1, 0.1, 2) * _CANVAS)
    return (*inverse[0], shift[0], *inverse[1], shift[1])


def _colours(rng: np.random.Generator, channels: int) -> tuple[np.ndarray, np.ndarray]:
    if channels == 1:
        paper, ink = np.zeros(1), rng.uniform(180, 255, 1)
        return (255 - paper, 255 - ink) if rng.random() < 0.1 else (paper, ink)
    while True:
        paper, ink = rng.uniform(0, 255, (2, channels))
        if abs(paper.mean() - ink.mean()) > 60:  # legible
            return paper, ink


def _glyph(font: "ImageFont.FreeTypeFont", letter: str, stroke: int) -> "Image.Image":
    """One letter, tightly cropped and enlarged to fill 3/4 of the canvas."""
    from PIL import Image, ImageDraw

    draft = Image.new("L", (3 * _CANVAS, 3 * _CANVAS))
    ImageDraw.Draw(draft).text(
        (1.5 * _CANVAS, 1.5 * _CANVAS),
        letter,
        font=font,
        fill=255,
        anchor="mm",
        stroke_width=stroke,
    )
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    if (box := draft.getbbox()) is not None:
        tight = draft.crop(box)
        scale = 0.75 * _CANVAS / max(tight.size)
        size = (max(1, round(tight.width * scale)), max(1, round(tight.height * scale)))
        corner = ((_CANVAS - size[0]) // 2, (_CANVAS - size[1]) // 2)
        canvas.paste(tight.resize(size, Image.Resampling.BILINEAR), corner)
    return canvas


def _bundled() -> list["ImageFont.FreeTypeFont"]:
    from PIL import ImageFont

    own = ImageFont.load_default(_CANVAS * 2 // 3)
    faces = [own] if isinstance(own, ImageFont.FreeTypeFont) else []
    return faces + list(_open(_matplotlib_fonts()))


def _matplotlib_fonts() -> list[Path]:
    try:
        import matplotlib
    except ImportError:
        return []
    folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
    return [p for face in _FACES if (p := folder / f"{face}.ttf").exists()]


def _open(paths: Sequence[Path]) -> Iterator["ImageFont.FreeTypeFont"]:
    from PIL import ImageFont

    for path in paths:
        try:
            yield ImageFont.truetype(path, _CANVAS * 2 // 3)
        except OSError:  # not a font FreeType reads
            continue


def _usable(paths: Sequence[Path]) -> list["ImageFont.FreeTypeFont"]:
    """Fonts that draw a sample of letters differently: no symbol fonts, no blanks."""
    sample = "AERas"
    faces = [
        face
        for face in _open(paths)
        if len({_glyph(face, letter, 0).tobytes() for letter in sample}) == len(sample)
    ]
    if not faces:
        raise InputError(f"none of the {len(paths)} font files can draw the letters A to z.")
    return faces


SIDE = 64  # pixels of a stored drawing
_MARGIN = SIDE // 4  # paper around it, so that a crop may be larger or off its middle
# Emoji's five skin tones (Fitzpatrick modifiers), as they stand in file names.
_TONES = frozenset(("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"))


def sheets(members: dict[str, bytes], vendor: str) -> dict[str, Pixels]:
    """64x64 PNG drawings, named by code points, as arrays of those without and with a skin tone.

    ``VENDOR-plain.npy`` and, if not empty, ``VENDOR-tones.npy``: uint8 (N, 64, 64, 4) in RGBA.

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


_CHUNK = 256  # images made at once, each chunk from its own seed
_SHAPES = 3  # at most, per image


def noise(count: int, shape: tuple[int, int, int], seed: int) -> Pixels:
    """Value noise over several octaves, random contrast, up to three ellipses, boxes or bars."""
    out = np.empty((count, *shape), dtype=np.uint8)
    for chunk, start in enumerate(range(0, count, _CHUNK)):
        # A whole chunk is always drawn, so that a shorter pool is the start of a longer one.
        rng = np.random.default_rng((seed, chunk))
        images = _draw_shapes(rng, _smooth(rng, shape))
        part = out[start : start + _CHUNK]
        part[:] = np.round(images[: len(part)] * 255)
    return out


def _smooth(rng: np.random.Generator, shape: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """Sum of random grids of 2, 4, 8, ... nodes a side, bilinearly enlarged; in [0, 1]."""
    channels, height, width = shape
    total = np.zeros((_CHUNK, channels, height, width))
    # Fine detail is weaker: amplitude falls by a random power of the frequency.
    slope = rng.uniform(0.5, 2.0, (_CHUNK, 1, 1, 1))
    nodes = 2
    while nodes <= max(height, width):
        grid = rng.normal(size=(_CHUNK, channels, nodes, nodes))
        # Channels of a natural image mostly agree.
        grid = 0.8 * grid.mean(axis=1, keepdims=True) + 0.6 * grid
        enlarged = _enlarge(height, nodes) @ grid @ _enlarge(width, nodes).T
        total += enlarged * (nodes / 2.0) ** -slope
        nodes *= 2
    low, high = (f(total, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    contrast = rng.uniform(0.2, 1.0, (_CHUNK, 1, 1, 1))
    floor = rng.uniform(0, 1, (_CHUNK, 1, 1, 1)) * (1 - contrast)
    return np.asarray(floor + contrast * (total - low) / (high - low))


def _enlarge(size: int, nodes: int) -> npt.NDArray[np.float64]:
    """The (size, nodes) matrix of linear interpolation."""
    at = np.linspace(0, nodes - 1, size)[:, None]
    weights: npt.NDArray[np.float64] = np.clip(1 - np.abs(at - np.arange(nodes)), 0, None)
    return weights


def _draw_shapes(
    rng: np.random.Generator, images: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    count, channels, height, width = images.shape
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    edge = max(height, width)
    for _ in range(_SHAPES):
        cx, cy = rng.uniform(0.1, 0.9, (2, count, 1, 1))
        a, b = rng.uniform(0.05, 0.4, (2, count, 1, 1))
        b = np.where(rng.random((count, 1, 1)) < 0.3, 0.05, b)  # bars
        angle = rng.uniform(0, np.pi, (count, 1, 1))
        u = ((x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)) / a
        v = ((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) / b
        round_ = rng.random((count, 1, 1)) < 0.5
        reach = np.where(round_, np.hypot(u, v), np.maximum(abs(u), abs(v)))
        # One pixel of soft edge, as a camera would see it.
        cover = np.clip((1 - reach) * np.minimum(a, b) * edge + 0.5, 0, 1)
        cover = cover * (rng.random((count, 1, 1)) < 0.5)
        colour = rng.uniform(0, 1, (count, channels, 1, 1))
        images = images + cover[:, None] * (colour - images)
    return images

"""Rendered letters: grey or colour query images that no data set holds."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from divqat_brevitas.data.arrays import Pixels, require
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

    Args:
        count: number of images.
        shape: (C, H, W), C 1 or 3.
        seed: the same seed gives the same images with the same fonts and Pillow.
        fonts: TrueType files; default: Pillow's own font, and those of matplotlib if it
            is installed.

    Returns:
        uint8 (count, C, H, W).

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

"""Pictures of every Pillow mode as 8-bit RGB, each mode by its own range."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from divqat_brevitas.data.arrays import require
from divqat_brevitas.errors import InputError, unknown_name

if TYPE_CHECKING:
    from PIL import Image

OPTIONS = ("background", "range")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
_SCALED = frozenset(("PPM", "PNG"))  # formats whose integers Pillow scales to 0..65535
_PHOTOMETRIC = 262  # TIFF's tag; Pillow inverts white-is-zero at 8 bits and fewer, not above


@dataclass(frozen=True)
class PictureRules:
    """Properties of pictures that their files do not contain.

    Attributes:
        background: the colour behind transparent pixels, in Pillow's spelling: a name, ``#rrggbb``.
        range: the values that are black and white in pictures with one channel of more than 8
            bits. None: 0 to 65535 for 16 bits, 0 to 1 for float; 32-bit integers are refused.
    """

    background: str = "white"
    range: tuple[float, float] | None = None

    @staticmethod
    def of(options: Mapping[str, str], name: str) -> "PictureRules":
        """The rules among the options of a set's or pool's name.

        Raises:
            InputError: no colour, or no range.
            ToolMissingError: a background is given, and Pillow is not installed.

        Example:
            >>> PictureRules.of({"range": "0..4095"}, "photos:x").range
            (0.0, 4095.0)
        """
        background = options.get("background", "white")
        if "background" in options:
            require("PIL")
            from PIL import ImageColor

            try:
                ImageColor.getrgb(background)
            except ValueError as e:
                raise InputError(
                    f"{name!r}: the background {background!r} is no colour. Write a name such as "
                    "black, or #rrggbb."
                ) from e
        if "range" not in options:
            return PictureRules(background)
        match = re.fullmatch(rf"({_NUMBER})\.\.({_NUMBER})", options["range"])
        low, high = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
        if not low < high < float("inf"):
            raise InputError(
                f"{name!r}: a range is LOW..HIGH with LOW below HIGH, such as range=0..4095: the "
                "values that are black and white."
            )
        return PictureRules(background, (low, high))


def split_options(text: str, known: tuple[str, ...], kind: str) -> tuple[str, dict[str, str]]:
    """``PATH?key=value&key=value`` as the path and the options.

    Raises:
        InputError: an option that is not among ``known``.

    Example:
        >>> split_options("scans?range=0..4095", OPTIONS, "pool option")
        ('scans', {'range': '0..4095'})
    """
    path, _, query = text.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(set(options) - set(known)):
        raise unknown_name(kind, unknown[0], known)
    return path, options


@dataclass(frozen=True)
class ConvertedPicture:
    """A picture as RGB, with what its conversion found.

    Attributes:
        rgb: picture of mode RGB.
        vanished: whether it has transparent pixels and is invisible on the background.
        peak: largest value as a share of the range, for one channel of more than 8 bits without a
            declared range; else None.
    """

    rgb: "Image.Image"
    vanished: bool = False
    peak: float | None = None


def to_rgb(picture: "Image.Image", rules: PictureRules, where: str) -> ConvertedPicture:
    """Convert a picture, opened or made, to 8-bit RGB.

    8-bit modes are converted as Pillow does. 16-bit grey is divided by 257 and rounded, 12-bit
    TIFF by its own 4095; Pillow itself reduces 16-bit colour to the high bytes. Float and 32-bit
    integers are mapped from the range of ``rules``. Transparent pixels (alpha, a transparent
    palette entry or key colour) are composed on the background.

    Raises:
        InputError: values that are not finite or outside the range, or integers of 32 bits
            without a declared range.
        Exception: what Pillow raises on damaged files.

    Example:
        >>> from PIL import Image
        >>> deep = Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16))
        >>> [p[0] for p in np.asarray(to_rgb(deep, PictureRules(), "deep.png").rgb)[0].tolist()]
        [0, 1, 255]
    """
    raw = _raw_mode(picture)
    picture.load()
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _from_deep(picture, rules, where, raw)
    if not picture.has_transparency_data:
        return ConvertedPicture(picture.convert("RGB"))
    if picture.mode in ("La", "RGBa"):
        picture = picture.convert("LA" if picture.mode == "La" else "RGBA")
    key = picture.info.get("transparency")
    if key is not None and picture.mode in ("L", "RGB"):
        picture.info["transparency"] = _at_eight_bits(key, raw)
    rgba = picture.convert("RGBA")
    return _composed(rgba.convert("RGB"), rgba.getchannel("A"), rules)


def _raw_mode(picture: "Image.Image") -> str:
    """How the file stores its values, in Pillow's words, such as ``RGB;16B``; "" if not known."""
    tiles = getattr(picture, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _at_eight_bits(key: int | tuple[int, ...], raw: str) -> int | tuple[int, ...]:
    """A key colour as the file stores it, where Pillow scaled the pixels but not the key."""
    if isinstance(key, tuple):
        return tuple(v >> 8 for v in key) if ";16" in raw else key
    return key * {"L;2": 85, "L;4": 17}.get(raw, 1)


def _composed(
    rgb: "Image.Image", alpha: "Image.Image", rules: PictureRules, peak: float | None = None
) -> ConvertedPicture:
    from PIL import Image, ImageColor

    paper = Image.new("RGB", rgb.size, ImageColor.getrgb(rules.background)[:3])
    paper.paste(rgb, mask=alpha)
    clear = any(count for count in alpha.histogram()[:255])
    flat = len(paper.getcolors() or ()) == 1  # None: more than 256 colours
    return ConvertedPicture(paper, clear and flat, peak)


def _from_deep(
    picture: "Image.Image", rules: PictureRules, where: str, raw: str
) -> ConvertedPicture:
    """One channel of 12, 16 or 32 bits."""
    from PIL import Image

    values = np.asarray(picture, dtype=np.float64)
    where = f"{where} (mode {picture.mode})"
    if not np.isfinite(values).all():
        raise InputError(
            f"{where} has {np.sum(~np.isfinite(values))} values that are NaN or infinite. Replace "
            "them by numbers, or remove the picture."
        )
    own = _own_range(picture, raw)
    scaled = picture.mode == "I" and own is not None  # by Pillow, from the file's own greatest
    low, high = _checked(values, own if scaled else rules.range or own, where)
    grey = np.floor((values - low) * (255 / (high - low)) + 0.5).astype(np.uint8)
    if getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == 0:  # white is zero
        grey = 255 - grey
    peak = None if scaled or rules.range else float((values.max() - low) / (high - low))
    rgb = Image.fromarray(grey).convert("RGB")
    key = picture.info.get("transparency")
    if key is None:
        return ConvertedPicture(rgb, peak=peak)
    alpha = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
    return _composed(rgb, alpha, rules, peak)


def _own_range(picture: "Image.Image", raw: str) -> tuple[float, float] | None:
    """The range that the mode or the file states, or None."""
    if picture.mode == "F":
        return 0.0, 1.0
    if picture.mode != "I":
        return 0.0, 4095.0 if raw == "I;12" else 65535.0
    return (0.0, 65535.0) if picture.format in _SCALED else None


def _checked(
    values: npt.NDArray[np.float64], range_: tuple[float, float] | None, where: str
) -> tuple[float, float]:
    lowest, highest = values.min(), values.max()
    if range_ is not None and range_[0] <= lowest and highest <= range_[1]:
        return range_
    fault = (
        "and nothing says which values are black and white"
        if range_ is None
        else f"outside the range {range_[0]:g} to {range_[1]:g}"
    )
    raise InputError(
        f"{where} has values from {lowest:g} to {highest:g}, {fault}. Declare the range that "
        "holds for all pictures of the set in its name, such as imagefolder:PATH?range=0..4095 "
        "or photos:FOLDER?range=0..4095."
    )

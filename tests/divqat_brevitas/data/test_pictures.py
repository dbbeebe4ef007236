"""Real files of every Pillow mode, through an image folder and through a pool of photographs."""

import struct
import warnings
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from divqat_brevitas.data import dataset_info, load, query_pool
from divqat_brevitas.data.pictures import PictureWarning, read_pictures
from divqat_brevitas.data.pixels import PictureRules, to_rgb
from divqat_brevitas.errors import InputError

# Four pixels in a row; every mode's file holds what these are in it.
COLOURS = ((255, 0, 0), (0, 255, 0), (20, 30, 200), (255, 255, 255))
GREYS = (0, 1, 128, 255)
WHITE = (255, 255, 255)


def of_grey(values: tuple[int, ...]) -> np.ndarray:
    return np.repeat(np.array(values, dtype=np.uint8)[:, None], 3, axis=1)


def row(values: object, dtype: type) -> Image.Image:
    return Image.fromarray(np.array([values], dtype=dtype))


def rgb_row() -> Image.Image:
    return row(COLOURS, np.uint8)


def read_set(root: Path, options: str = "", channels: int = 3) -> np.ndarray:
    """The one picture of the test split as it is, (width, channels): size=4 fits the row."""
    images, _ = load(f"imagefolder:{root}?size=4&channels={channels}{options}", "test")
    assert (images == images[:, :, :1]).all(), "rows differ"
    return images[0, :, 0].T


def save(root: Path, picture: Image.Image, name: str, **options: object) -> Path:
    """The row, four times below itself, as the only picture of a test split."""
    path = root / "test/a" / name
    path.parent.mkdir(parents=True)
    (root / "train/a").mkdir(parents=True)
    Image.new("L", (4, 4)).save(root / "train/a/0.png")
    tall = picture.copy()
    if picture.size == (4, 1):
        tall = Image.new(picture.mode, (4, 4))
        if picture.palette is not None:
            tall.putpalette(picture.palette)
        for y in range(4):
            tall.paste(picture, (0, y))
    tall.save(path, **options)  # type: ignore[arg-type]
    return path


def paletted() -> Image.Image:
    picture = Image.new("P", (4, 1))
    picture.putpalette([v for colour in COLOURS for v in colour])
    picture.putdata([0, 1, 2, 3])
    return picture


def with_alpha(mode: str) -> Image.Image:
    """Four colours or greys, with alpha 255, 0, 128 and 1."""
    picture = (rgb_row() if mode == "RGBA" else row(GREYS, np.uint8)).convert(mode)
    picture.putalpha(row((255, 0, 128, 1), np.uint8))
    return picture


def over(values: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    alpha = np.array([255, 0, 128, 1])[:, None]
    blended = values.astype(int) * alpha + np.array(background) * (255 - alpha)
    return np.array([[round(Fraction(int(v), 255)) for v in pixel] for pixel in blended])


CASES = {
    "1.png": (row(GREYS, np.uint8).point(lambda v: 255 * (v > 100), "1"), (0, 0, 255, 255)),
    "1.tif": (row(GREYS, np.uint8).point(lambda v: 255 * (v > 100), "1"), (0, 0, 255, 255)),
    "l.png": (row(GREYS, np.uint8), GREYS),
    "l.pgm": (row(GREYS, np.uint8), GREYS),
    "p.png": (paletted(), COLOURS),
    "p.bmp": (paletted(), COLOURS),
    "rgb.png": (rgb_row(), COLOURS),
    "rgb.ppm": (rgb_row(), COLOURS),
    "rgb.webp": (rgb_row(), COLOURS),
    "rgbx.tif": (rgb_row().convert("RGBX"), COLOURS),
    # Pillow's own formula, (255 - c) * (255 - k) / 255, is exact where k is 0.
    "cmyk.tif": (rgb_row().convert("CMYK"), COLOURS),
    # v / 257, rounded: 128 and 129 are on either side of one half.
    "i16.png": (row((0, 128, 129, 65535), np.uint16), (0, 0, 1, 255)),
    "i16.tif": (row((257, 32767, 32768, 65535), np.uint16), (1, 127, 128, 255)),
    "i16b.tif": (row((257, 32767, 32768, 65535), np.dtype(">u2")), (1, 127, 128, 255)),
    "i16.pgm": (row((257, 32767, 32768, 65535), np.uint16), (1, 127, 128, 255)),
    # v * 255, rounded.
    "f.tif": (row((0.0, 0.25, 0.5, 1.0), np.float32), (0, 64, 128, 255)),
}


@pytest.mark.parametrize("name", CASES)
def test_every_mode_by_its_own_range(tmp_path: Path, name: str) -> None:
    picture, expected = CASES[name]
    path = save(tmp_path, picture, name, **({"lossless": True} if name.endswith("webp") else {}))
    pixels = of_grey(expected) if isinstance(expected[0], int) else np.array(expected)
    assert np.array_equal(read_set(tmp_path), pixels)
    grey = np.asarray(Image.fromarray(pixels[None].astype(np.uint8)).convert("L"))
    assert np.array_equal(read_set(tmp_path, channels=1), grey.T)
    # A pool reads with the same function.
    (pooled,) = read_pictures([path], PictureRules(), tmp_path, longest=1024)
    assert np.array_equal(np.asarray(pooled)[0], pixels)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_sixteen_bits_in_any_byte_order(mode: str) -> None:
    order = {"I;16B": ">u2", "I;16N": "=u2"}.get(mode, "<u2")
    values = np.arange(65536).astype(order).reshape(256, 256)
    picture = Image.frombytes(mode, (256, 256), values.tobytes())
    expected = [round(Fraction(v, 257)) for v in range(65536)]
    rgb = np.asarray(to_rgb(picture, PictureRules(), "made").rgb)
    assert rgb[..., 0].ravel().tolist() == expected
    assert (rgb == rgb[..., :1]).all()


@pytest.mark.parametrize(("mode", "high"), [("RGB", (255, 1, 127)), ("RGBA", (255, 1, 127))])
def test_sixteen_bit_colour_keeps_its_high_bytes(tmp_path: Path, mode: str, high: object) -> None:
    """A PNG of 16 bits a channel, which Pillow reads but does not write."""
    pixel = (65535, 256, 32767) + ((65535,) if mode == "RGBA" else ())
    path = save(tmp_path, Image.new("L", (4, 4)), "deep.png")
    path.write_bytes(deep_png(6 if mode == "RGBA" else 2, pixel))
    assert read_set(tmp_path).tolist() == [list(high)] * 4  # type: ignore[call-overload]


def deep_png(colour_type: int, pixel: tuple[int, ...], key: tuple[int, ...] = ()) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = (b"\0" + struct.pack(f">{len(pixel)}H", *pixel) * 4) * 4
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, colour_type, 0, 0, 0)),
            chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b"",
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


@pytest.mark.parametrize(
    ("colour_type", "pixel", "shown"), [(0, (300,), (1, 1, 1)), (2, (300, 40000, 5), (1, 156, 0))]
)
def test_key_colours_of_sixteen_bits(
    tmp_path: Path, colour_type: int, pixel: tuple[int, ...], shown: tuple[int, ...]
) -> None:
    path = save(tmp_path, Image.new("L", (4, 4)), "deep.png")
    path.write_bytes(deep_png(colour_type, pixel, key=pixel))
    with pytest.warns(PictureWarning, match="nothing is to be seen on the background 'white'"):
        assert read_set(tmp_path).tolist() == [[255] * 3] * 4
    other = tuple(v + 1024 for v in pixel)
    path.write_bytes(deep_png(colour_type, pixel, key=other))
    assert read_set(tmp_path).tolist() == [list(shown)] * 4


@pytest.mark.parametrize(("bits", "white"), [(2, 3), (4, 15)])
def test_key_greys_of_a_few_bits(tmp_path: Path, bits: int, white: int) -> None:
    """Pillow scales such pixels to 8 bits and leaves the key as the file has it."""
    path = save(tmp_path, row(GREYS, np.uint8), "few.png")
    packed = Image.new("L", (4, 4), 255)
    packed.save(path, bits=bits, transparency=white)
    with Image.open(path) as file:
        if file.mode != "L" or file.info["transparency"] != white:
            pytest.skip("this Pillow writes such greys in another way")
    assert read_set(tmp_path, "&background=black").tolist() == [[0, 0, 0]] * 4


@pytest.mark.parametrize("background", ["", "white", "black", "%231e90ff"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_shows_the_stated_background(
    tmp_path: Path, mode: str, background: str
) -> None:
    save(tmp_path, with_alpha(mode), "alpha.png")
    colour = {"black": (0, 0, 0), "%231e90ff": (30, 144, 255)}.get(background, WHITE)
    option = f"&background={background}" if background else ""
    below = np.array(COLOURS) if mode == "RGBA" else of_grey(GREYS)
    assert np.array_equal(read_set(tmp_path, option), over(below, colour))


def test_a_black_drawing_on_transparent_ground_is_seen(tmp_path: Path) -> None:
    drawing = Image.new("RGBA", (4, 4))  # transparent black
    drawing.paste((0, 0, 0, 255), (1, 0, 2, 4))
    save(tmp_path, drawing, "drawing.png")
    assert read_set(tmp_path, channels=1).ravel().tolist() == [255, 0, 255, 255]
    with pytest.warns(PictureWarning, match=r"background 'black': 1 \(a/drawing\.png\)"):
        assert not read_set(tmp_path, "&background=black").any()


def test_transparent_palettes_and_premultiplied_alpha(tmp_path: Path) -> None:
    save(tmp_path, paletted(), "p.png", transparency=bytes((255, 0, 128, 1)))
    assert np.array_equal(read_set(tmp_path), over(np.array(COLOURS), WHITE))
    save(tmp_path / "key", paletted(), "p.png", transparency=1)
    assert read_set(tmp_path / "key").tolist() == [
        list(c) for c in (*COLOURS[:1], WHITE, *COLOURS[2:])
    ]
    both = Image.merge("LA", (Image.new("L", (1, 1), 2), Image.new("L", (1, 1), 0)))
    palette = Image.new("PA", (1, 1))
    palette.putpalette([v for colour in COLOURS for v in colour])
    for picture, seen in (
        (both, WHITE),
        (palette, WHITE),
        (Image.new("La", (1, 1), (64, 128)), (191, 191, 191)),
        (Image.new("RGBa", (1, 1), (128, 0, 0, 128)), (255, 127, 127)),
    ):
        rgb = to_rgb(picture, PictureRules(), "made").rgb
        assert rgb.getpixel((0, 0)) == seen, picture.mode


def test_other_colour_spaces_become_rgb(tmp_path: Path) -> None:
    in_ycbcr = rgb_row().convert("YCbCr")
    save(tmp_path, in_ycbcr, "y.tif")
    assert np.array_equal(read_set(tmp_path), np.asarray(in_ycbcr.convert("RGB"))[0])
    assert abs(read_set(tmp_path).astype(int) - np.array(COLOURS)).max() <= 3  # rounded twice
    in_hsv = rgb_row().convert("HSV")
    hsv = np.asarray(to_rgb(in_hsv, PictureRules(), "made").rgb)[0]
    assert np.array_equal(hsv, np.asarray(in_hsv.convert("RGB"))[0])
    assert abs(hsv.astype(int) - np.array(COLOURS)).max() <= 5  # one step of 256 hues is 4.2 here
    # Neutral greys of CIE L*a*b*: L* = 116 (Y / Yn)^(1/3) - 16 at sRGB's 0, 64, 128 and 255.
    neutral = [(round(level * 2.55), 128, 128) for level in (0, 27.09, 53.59, 100)]
    lab = Image.new("LAB", (4, 1))  # a and b are kept with 128 added
    lab.putdata(neutral)
    save(tmp_path / "lab", lab, "lab.tif")
    by_profile = read_set(tmp_path / "lab").astype(int)
    assert abs(by_profile - of_grey((0, 64, 128, 255))).max() <= 1  # L* rounds to 8 bits


def test_a_declared_range_holds_for_every_deep_mode(tmp_path: Path) -> None:
    for i, (name, dtype) in enumerate(
        (("i16.tif", np.uint16), ("i32.tif", np.int32), ("f.tif", np.float32))
    ):
        root = tmp_path / str(i)
        save(root, row((0, 8, 2048, 4095), dtype), name)
        # 8 and 2048 of 4095 are 0.498 and 127.53 of 255.
        assert read_set(root, "&range=0..4095").tolist() == of_grey((0, 0, 128, 255)).tolist()
        with pytest.raises(InputError, match="from 0 to 4095, outside the range 0 to 2000"):
            read_set(root, "&range=0..2000")
    save(tmp_path / "signed", row((-1, -0.5, 0.5, 1), np.float32), "f.tif")
    signed = read_set(tmp_path / "signed", "&range=-1..1")
    assert signed.tolist() == of_grey((0, 64, 191, 255)).tolist()


@pytest.mark.parametrize(
    ("values", "dtype", "said"),
    [
        ((0, 3, 9, 70000), np.int32, r"\(mode I\) has values from 0 to 70000, and nothing says"),
        ((0, 3, 9, 255), np.float32, r"\(mode F\) has values from 0 to 255, outside .* 0 to 1\."),
        ((-1, 0, 0, 1), np.float32, "from -1 to 1, outside the range 0 to 1"),
        ((0, np.nan, np.inf, 1), np.float32, "has 8 values that are NaN or infinite"),
    ],
)
def test_values_of_no_known_range_are_refused(
    tmp_path: Path, values: tuple[float, ...], dtype: type, said: str
) -> None:
    path = save(tmp_path, row(values, dtype), "deep.tif")
    with pytest.raises(InputError, match=said) as set_error:
        read_set(tmp_path)
    with pytest.raises(InputError, match=said) as pool_error:
        query_pool(f"photos:{tmp_path}/test", "cifar10", 3, seed=0)
    for error in (set_error, pool_error):
        assert str(error.value).startswith(str(path))
        assert "nan" in said.lower() or "photos:FOLDER?range=" in str(error.value)


def test_twelve_bits_in_sixteen_are_said_to_be_dark(tmp_path: Path) -> None:
    save(tmp_path, row((0, 9, 100, 4000), np.uint16), "i16.tif")
    with pytest.warns(PictureWarning, match=r"1 pictures .* use 6\.10% of their range.*range="):
        read_set(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PictureWarning)
        assert read_set(tmp_path, "&range=0..4000")[-1].tolist() == [255] * 3


def test_white_is_zero(tmp_path: Path) -> None:
    save(tmp_path, row((0, 257, 2570, 65535), np.uint16), "i16.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "test/a/i16.tif") as file:
        assert file.tag_v2[262] == 0  # type: ignore[attr-defined]
    assert read_set(tmp_path).tolist() == of_grey((255, 254, 245, 0)).tolist()


@pytest.mark.parametrize("options", ["range=5..5", "range=7", "range=1e999..2", "background=blak"])
def test_bad_rules(tmp_path: Path, options: str) -> None:
    save(tmp_path, rgb_row(), "rgb.png")
    said = r"LOW\.\.HIGH|is no colour"
    with pytest.raises(InputError, match=said):
        load(f"imagefolder:{tmp_path}?{options}", "test")
    with pytest.raises(InputError, match=said):
        query_pool(f"photos:{tmp_path}/test?{options}", "digits", 3, seed=0)
    with pytest.raises(InputError, match="did you mean 'range'"):
        query_pool(f"photos:{tmp_path}/test?rage=0..1", "digits", 3, 0)


def test_a_pool_takes_the_rules_of_its_name(tmp_path: Path) -> None:
    save(tmp_path, row((4095, 4095, 4095, 4095), np.uint16), "i16.tif")
    pool = query_pool(f"mix:photos:{tmp_path}/test?range=0..4095:0.5,noise", "digits", 2, seed=0)
    assert sorted(image.min() == image.max() == 255 for image in pool.images) == [False, True]


def animated(path: Path, **options: object) -> None:
    frames = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (10, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["two.tif", "two.png", "two.webp"])
def test_of_several_frames_the_first_is_used_and_said(tmp_path: Path, name: str) -> None:
    animated(save(tmp_path, rgb_row(), name), **({"lossless": True} if "webp" in name else {}))
    with pytest.warns(PictureWarning, match=rf"several frames: 1 \(a/{name}\)\. Only the first"):
        assert read_set(tmp_path).tolist() == [[10, 0, 0]] * 4


@pytest.mark.parametrize("cut", [0, 8, 60])
def test_cut_files_are_named(tmp_path: Path, cut: int) -> None:
    path = save(tmp_path, Image.effect_noise((64, 64), 90), "noise.png")
    path.write_bytes(path.read_bytes()[:cut])
    said = r"noise\.png is empty" if cut == 0 else r"noise\.png cannot be read as a picture"
    with pytest.raises(InputError, match=said):
        read_set(tmp_path)
    with pytest.raises(InputError, match=said):
        query_pool(f"photos:{tmp_path}/test", "cifar10", 3, seed=0)


def test_hidden_and_empty_folders_are_no_classes(tmp_path: Path) -> None:
    hidden = (".ipynb_checkpoints", "__MACOSX/ant", "ant/.ipynb_checkpoints")
    for part in ("train", "test"):
        for name, shade in (("ant", 9), ("bee", 9), *((name, 99) for name in hidden)):
            folder = tmp_path / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(10):
                Image.new("L", (4, 4), shade).save(folder / f"{i}.png")
        (tmp_path / part / "cat/deep").mkdir(parents=True)
        for junk in (".DS_Store", "ant/._0.png", "bee/Thumbs.db"):
            (tmp_path / part / junk).write_bytes(b"junk")
    name = f"imagefolder:{tmp_path}?size=4"
    assert dataset_info(name).classes == ("ant", "bee")
    said = ".DS_Store, .ipynb_checkpoints, __MACOSX, ..."
    with pytest.warns(PictureWarning) as caught:
        images, labels = load(name, "test")
    assert [str(w.message).partition(". ")[0] for w in caught] == [
        f"{tmp_path}/test: files and folders skipped: 7 ({said})"
    ]
    assert len(labels) == 20
    assert (images == 9).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error", PictureWarning)
        load(name, "test")  # said once
    with pytest.warns(PictureWarning, match=r"train: files and folders skipped: 6 \("):
        pool = query_pool(f"photos:{tmp_path}/train", "digits", 3, seed=0)
    assert (pool.images == 9).all()


def test_a_class_without_pictures_in_training_is_unknown_in_the_test(tmp_path: Path) -> None:
    save(tmp_path, rgb_row(), "rgb.png")
    (tmp_path / "train/b").mkdir()
    (tmp_path / "test/b").mkdir()
    with pytest.warns(PictureWarning, match=r"skipped: 1 \(b\)"):
        assert load(f"imagefolder:{tmp_path}?size=4", "test")[1].tolist() == [0]
    rgb_row().save(tmp_path / "test/b/0.png")
    with pytest.raises(InputError, match="the class folder 'b', which train/ does not have"):
        load(f"imagefolder:{tmp_path}?size=4", "test")


def test_a_set_of_hidden_pictures_only_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, rgb_row(), "rgb.png")
    (tmp_path / "train/a").rename(tmp_path / "train/.a")
    with pytest.raises(InputError, match="hidden and empty ones do not count"):
        dataset_info(f"imagefolder:{tmp_path}")
    with pytest.raises(InputError, match="holds no pictures"):
        query_pool(f"photos:{tmp_path}/train", "digits", 3, seed=0)

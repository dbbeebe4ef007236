"""Colours of the page, by the formulas of WCAG 2.2: contrast ratio and relative luminance."""

import re
from importlib.resources import files

import pytest

from fpga_flow.report.charts import COLOURS, LINE

TEXT = 4.5  # 1.4.3, level AA
GRAPHICS = 3.0  # 1.4.11
STYLE = (files("fpga_flow.report") / "templates" / "page.css").read_text(encoding="utf-8")


def palette(dark: bool = False) -> dict[str, str]:
    """Colour names to ``#rrggbb``, of the light theme or the dark one."""
    light, night = re.findall(r":root\s*\{([^}]*)\}", STYLE)
    return dict(re.findall(r"--([a-z-]+):\s*(#[0-9a-f]{6})", night if dark else light))


def channels(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def luminance(colour: tuple[float, float, float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def mixed(
    a: tuple[float, float, float], b: tuple[float, float, float], share: float
) -> tuple[float, float, float]:
    """color-mix(in srgb, a share, transparent) over b."""
    red, green, blue = (share * x + (1 - share) * y for x, y in zip(a, b, strict=True))
    return red, green, blue


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast(channels("#000000"), channels("#ffffff")) == pytest.approx(21)
    # The standard's own example of a grey that just passes.
    assert contrast(channels("#767676"), channels("#ffffff")) == pytest.approx(4.54, abs=0.005)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("ground", ["surface", "page"])
@pytest.mark.parametrize("ink", ["ink", "muted", "accent", "good", "bad"])
def test_text_can_be_read(dark: bool, ground: str, ink: str) -> None:
    colours = palette(dark)
    assert contrast(channels(colours[ink]), channels(colours[ground])) >= TEXT


@pytest.mark.parametrize("dark", [False, True])
def test_text_on_the_darkest_shade_of_a_table_can_be_read(dark: bool) -> None:
    shares = {int(share) / 100 for share in re.findall(r"var\(--shade\)[^%;]*?(\d+)%", STYLE)}
    assert shares == {0.35}, "the shades that the style sheet uses"
    colours = palette(dark)
    surface, series = channels(colours["surface"]), channels(colours["shade"])
    assert contrast(channels(colours["ink"]), mixed(series, surface, max(shares))) >= TEXT


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("drawn", [*COLOURS, LINE])
def test_lines_and_bars_stand_out(dark: bool, drawn: str) -> None:
    assert contrast(channels(drawn), channels(palette(dark)["surface"])) >= GRAPHICS


def test_no_colour_is_written_outside_of_the_themes() -> None:
    _, _, rules = STYLE.partition("* {")
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b|\brgb|\bhsl", rules)

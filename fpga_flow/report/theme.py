"""The page's colours, read from its style sheet: the one place where they are written."""

import re
from importlib.resources import files

_ROOT = re.compile(r":root\s*\{([^}]*)\}")
_COLOUR = re.compile(r"--([a-z0-9-]+):\s*(#[0-9a-f]{6})")


def style_sheet() -> str:
    """The page's style sheet."""
    return (files("fpga_flow.report") / "page.css").read_text(encoding="utf-8")


def palette(dark: bool = False) -> dict[str, str]:
    """Colour names to ``#rrggbb``, of the light theme or the dark one.

    Example:
        >>> palette()["surface"], palette(dark=True)["surface"]
        ('#ffffff', '#1a2028')
    """
    light, night = _ROOT.findall(style_sheet())
    return dict(_COLOUR.findall(night if dark else light))


def variables() -> str:
    """The head of the style sheet, which sets the colours of both themes."""
    return style_sheet().partition("* {")[0].strip()

"""Turn a matplotlib figure into an inline SVG that follows the page's light or dark theme.

Charts are drawn with stand-in colours (:data:`COLOURS`); each becomes a CSS variable, so one
drawing serves both themes. Namespaces and metadata are dropped (HTML needs neither, and they are
the only addresses in the file), and every id gets the chart's own prefix.
"""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from fpga_flow.report.text import printable

# Stand-in colour -> CSS variable of page.css. Never seen: only told apart.
COLOURS = {
    "ink": "#010101",
    "muted": "#020202",
    "grid": "#030303",
    "surface": "#040404",
    **{f"series-{index}": f"#0505{index:02x}" for index in range(8)},
}
_VARIABLE = {code: f"var(--{name})" for name, code in COLOURS.items()}
_XLINK = "{http://www.w3.org/1999/xlink}href"


def inline(figure: Any, name: str, title: str, description: str) -> str:
    """Render a matplotlib ``Figure`` as one ``<svg>`` element.

    Args:
        figure: drawn with :data:`COLOURS` only, under :func:`style`.
        name: prefix of every id; unique in the page.
        title: accessible name.
        description: what the chart shows, in words, for those who cannot see it.

    Returns:
        Well-formed XML without declaration, namespaces or addresses.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())
    for parent in root.iter():
        for child in [c for c in parent if _local(c.tag) in ("metadata", "style")]:
            parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = _attributes(element.attrib, name)
    labels = [ET.Element("title", id=f"{name}-title"), ET.Element("desc", id=f"{name}-desc")]
    for label, text in zip(labels, (title, description), strict=True):
        label.text = printable(text)
    root[:0] = labels
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
        "class": "chart",
    }
    return ET.tostring(root, encoding="unicode")


def style(colours: Mapping[str, str] = COLOURS) -> dict[str, object]:
    """Matplotlib settings for :func:`inline`: real text, stand-in colours, few lines."""
    ink, muted, grid = colours["ink"], colours["muted"], colours["grid"]
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "divqat",  # the same chart is the same text
        "text.parse_math": False,  # a "$" in a name is a dollar
        "font.family": "DejaVu Sans",  # it comes with matplotlib; the page shows its own font
        "font.size": 10.5,
        "text.color": ink,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "axes.prop_cycle": f"cycler('color', ['{ink}'])",
        "axes.edgecolor": muted,
        "axes.labelcolor": ink,
        "axes.titlesize": 11.5,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": grid,
        "grid.linewidth": 0.8,
        "xtick.color": muted,
        "xtick.labelcolor": ink,
        "ytick.color": muted,
        "ytick.labelcolor": ink,
        "legend.frameon": False,
        "legend.fontsize": 10,
        "hatch.linewidth": 1.2,
        "patch.linewidth": 1.0,
    }


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _attributes(found: dict[str, str], name: str) -> dict[str, str]:
    attributes: dict[str, str] = {}
    declarations: list[str] = []
    for key, value in found.items():
        value = re.sub(r"url\(#", f"url(#{name}-", value)
        if key == "id":
            attributes["id"] = f"{name}-{value}"
        elif key == _XLINK:
            attributes["href"] = f"#{name}-{value.removeprefix('#')}"
        elif key in ("fill", "stroke") and value in _VARIABLE:
            # var() means something in a style only, not in an attribute.
            declarations.append(f"{key}: {_VARIABLE[value]}")
        elif key == "style":
            value = re.sub(r"font-family: [^;]*;?", "", value)
            value = re.sub(r"font: ([\d.]+px) [^;]*", r"font-size: \1", value)
            declarations.append(re.sub(r"#[0-9a-f]{6}", _themed, value))
        else:
            attributes[key] = value
    if declarations:
        attributes["style"] = "; ".join(declarations)
    return attributes


def _themed(match: re.Match[str]) -> str:
    return _VARIABLE.get(match[0], match[0])

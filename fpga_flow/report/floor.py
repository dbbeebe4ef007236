"""The FPGA's floor: how much of the device a design takes, and where its layers were placed."""

from collections.abc import Sequence

from fpga_flow.report.blocks import charts, note, paragraph
from fpga_flow.report.charts import Chart, Numbers
from fpga_flow.report.hardware_figures import device_share
from fpga_flow.report.markup import Markup, element
from fpga_flow.report.runs import in_order
from fpga_flow.report.schema import Placement, Results
from fpga_flow.report.text import printable
from fpga_flow.report.words import not_run

_TILE = 4  # user units of the drawing
_APART = 7  # layers with a colour of their own; the rest shares one
_REST = "all others"
_NOT_RUN = (
    "Placement: not run. There is no placed design (the setting compile.until=bitstream makes one)."
)


def floor(results: Results) -> list[Markup]:
    """Use of the target's cells, then the map of the chip."""
    if not results.hardware:
        return [paragraph(f"Use of the device: {not_run(results, 'compile')}.")]
    share = device_share(results)
    parts = [
        charts([share])
        if share
        else paragraph("Use of the device: not known; the tools named no share of its cells.")
    ]
    if not results.placement:
        return [*parts, paragraph(_NOT_RUN)]
    drawn = [
        _map(variant, number, results.placement[variant])
        for number, variant in enumerate(in_order(results, results.placement))
    ]
    return [
        *parts,
        note(
            "Map: tiles where place-and-route put at least one cell of a layer, the chip's upper "
            "left corner at the upper left. A tile that layers share has the colour of the one "
            "with fewest tiles."
        ),
        charts(drawn),
    ]


def _map(variant: str, number: int, placed: Placement) -> Chart:
    """The chip with one path a layer, in the theme's colours, numbered as in the table."""
    tiles = {name: _points(text) for name, text in placed.tiles.items()}
    shown = _grouped(tiles)
    across = placed.columns or max((x for t in tiles.values() for x, _ in t), default=0)
    down = placed.rows or max((y for t in tiles.values() for _, y in t), default=0)
    width, height = _TILE * (across + 1), _TILE * (down + 1)
    title, name = f"Where {variant} lies on {placed.device}", f"floor-{number}"
    said = "; ".join(f"{layer} {len(at):,} tiles" for layer, at in shown.items())
    drawing = [
        element("title", title, id=f"{name}-title"),
        element("desc", f"Tiles taken: {said}.", id=f"{name}-desc"),
        element("rect", width=width, height=height, class_="die"),
    ]
    for colour, at in enumerate(shown.values()):
        squares = "".join(f"M{_TILE * x} {_TILE * y}h{_TILE}v{_TILE}h-{_TILE}z" for x, y in at)
        drawing.append(element("path", d=squares, style=f"fill: var(--series-{colour})"))
    for index, at in enumerate(shown.values(), start=1):
        x, y = (sum(place[axis] for place in at) / len(at) for axis in (0, 1))
        place = {"x": round(_TILE * (x + 0.5)), "y": round(_TILE * (y + 0.5)) + 6}
        drawing.append(element("text", index, **place, class_="number-on-map"))
    labels = f"{name}-title {name}-desc"
    box = f"0 0 {width} {height}"
    markup = element(
        "svg", *drawing, viewBox=box, role="img", aria_labelledby=labels, class_="chart map"
    )
    rows = [
        (str(index), printable(layer), f"{len(at):,}", _extent(at))
        for index, (layer, at) in enumerate(shown.items(), start=1)
    ]
    return Chart(name, title, markup, Numbers(("No.", "Layer", "Tiles", "Columns, rows"), rows))


def _grouped(tiles: dict[str, list[tuple[int, int]]]) -> dict[str, list[tuple[int, int]]]:
    """The largest layers by themselves, FIFOs with their layer; largest first."""
    whole: dict[str, set[tuple[int, int]]] = {}
    for name, at in tiles.items():
        whole.setdefault(name.removesuffix("_fifo").removesuffix("_dwc"), set()).update(at)
    ordered = sorted(whole, key=lambda name: (-len(whole[name]), name))
    if len(ordered) > _APART + 1:
        rest = set().union(*(whole[name] for name in ordered[_APART:]))
        whole = {name: whole[name] for name in ordered[:_APART]} | {_REST: rest}
    largest_first = sorted(whole, key=lambda name: -len(whole[name]))
    return {name: sorted(whole[name]) for name in largest_first if whole[name]}


def _points(text: str) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in (tile.split(",") for tile in text.split())]


def _extent(at: Sequence[tuple[int, int]]) -> str:
    columns, rows = [x for x, _ in at], [y for _, y in at]
    return f"{min(columns)}–{max(columns)}, {min(rows)}–{max(rows)}"

"""The equivalence ladder: from the float network to the chip, rung by rung and victim by victim."""

from collections.abc import Sequence
from dataclasses import dataclass

from fpga_flow.report.blocks import folded, note, paragraph
from fpga_flow.report.markup import Markup, amount, element, table
from fpga_flow.report.runs import in_order, variants
from fpga_flow.report.schema import EquivalenceRow, Results
from fpga_flow.report.text import counted, percent
from fpga_flow.report.words import equivalence_line, not_run


@dataclass(frozen=True)
class _Rung:
    """One step down: its name, and the engine whose rows belong to it (by its name's start)."""

    name: str
    engine: str
    whole: bool = False
    stage: str = "simulate"


_RUNGS = (
    _Rung("quantized, in torch → QONNX", "qonnx", whole=True),
    _Rung("QONNX → integer engine", "integer", whole=True),
    _Rung("integer engine → FINN, after each step", "finn"),
    _Rung("integer engine → RTL", "rtl", whole=True),
    _Rung("integer engine → RTL with random stalls", "rtl with stalls", whole=True),
    _Rung("RTL → netlist after synthesis", "netlist", whole=True),
    _Rung("RTL → chip, simulated on its pins", "chip", whole=True),
)


def equivalence(results: Results) -> list[Markup]:
    """The ladder, and below it every comparison."""
    if not results.equivalence:
        return [paragraph(f"Equivalence of engines: {not_run(results, 'simulate')}.")]
    names = in_order(results, {row.variant for row in results.equivalence})
    return [
        paragraph(
            f"{equivalence_line(results)}. A mismatch is an input on which any compared integer "
            "differs; equality is exact, without a tolerance. The first step, from the float "
            "network to the quantized one, changes the network: there is nothing to be equal, so "
            "the share of test images on which the two decide differently is given."
        ),
        table("The ladder from float to chip", ("Step", *names), _rows(results, names), names),
        note(
            "“Not run” means that this run made no such comparison: no tool, no bitstream, or not "
            "asked for. No board was used, by this program, for any row."
        ),
        folded(f"Every comparison ({len(results.equivalence)})", _every(results.equivalence)),
    ]


def _rows(results: Results, names: Sequence[str]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        ("float → quantized, in torch", *(_changed(results, name) for name in names))
    ]
    taken: set[int] = set()
    for rung in _RUNGS:
        cells: list[object] = []
        for name in names:
            found = [row for row in results.equivalence if row.variant == name and _is(row, rung)]
            taken |= {id(row) for row in found}
            cells.append(_outcome(found))
        rows.append((rung.name, *cells))
    for pair in dict.fromkeys((r.a, r.b) for r in results.equivalence if id(r) not in taken):
        found_ = {r.variant: r for r in results.equivalence if (r.a, r.b) == pair}
        cells = [_outcome([found_[name]] if name in found_ else []) for name in names]
        rows.append((f"{pair[0]} → {pair[1]}", *cells))
    return rows


def _is(row: EquivalenceRow, rung: _Rung) -> bool:
    return row.b == rung.engine if rung.whole else row.b.startswith(rung.engine)


def _changed(results: Results, name: str) -> Markup:
    """Decisions that differ from the float reference's, mean over seeds."""
    shares = [
        row.flips_from_reference
        for row in results.victims
        if row.variant == name and row.flips_from_reference is not None
    ]
    if name not in variants(results) or not shares:
        return element("span", "not measured", class_="muted")
    return element("span", f"{percent(sum(shares) / len(shares))} decided differently")


def _outcome(found: Sequence[EquivalenceRow]) -> Markup:
    if not found:
        return element("span", "– not run", class_="muted")
    wrong, inputs = sum(row.mismatches for row in found), min(row.inputs for row in found)
    steps = f", {counted(len(found), 'comparison')}" if len(found) > 1 else ""
    if wrong:
        said = f"✗ {wrong:,} differ ({counted(inputs, 'input')}{steps})"
        return element("span", said, class_="bad")
    return element("span", f"✓ identical ({counted(inputs, 'input')}{steps})", class_="good")


def _every(found: Sequence[EquivalenceRow]) -> Markup:
    rows = [
        (
            row.variant,
            row.a,
            row.b,
            row.unit,
            amount(row.inputs),
            element(
                "span",
                "✓ " if row.mismatches == 0 else "✗ ",
                amount(row.mismatches),
                ", identical" if row.mismatches == 0 else ", differ",
                class_="good" if row.mismatches == 0 else "bad",
            ),
        )
        for row in found
    ]
    head = ("Variant", "From", "To", "Compared", "Inputs", "Mismatches")
    return table("Engines compared", head, rows, ("From", "To", "Compared"))

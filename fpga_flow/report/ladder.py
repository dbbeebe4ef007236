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
            "differs; equality is exact, without a tolerance. A mismatch is by float noise where "
            "torch or QONNX puts out the neighbouring code at a sum that float32 rounding cannot "
            "tell from the threshold, and everything behind follows exactly. The first step, from "
            "the float "
            "network to the quantized one, changes the network: there is nothing to be equal, so "
            "the share of test images on which the two decide differently is given."
        ),
        table("The ladder from float to chip", ("Step", *names), _rows(results, names), names),
        note(
            "“Not run” means that this run made no such comparison: no tool, no bitstream, or not "
            "asked for. No board was used, by this program, for any row."
        ),
        *_noise(results.equivalence),
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
    wrong, inputs = sum(row.faults for row in found), min(row.inputs for row in found)
    noise = sum(row.by_noise for row in found)
    steps = f", {counted(len(found), 'comparison')}" if len(found) > 1 else ""
    if wrong:
        said = f"✗ {wrong:,} differ ({counted(inputs, 'input')}{steps})"
        return element("span", said, class_="bad")
    if noise:
        said = f"✓ identical but for float noise: {noise:,} ({counted(inputs, 'input')}{steps})"
        return element("span", said, class_="good")
    return element("span", f"✓ identical ({counted(inputs, 'input')}{steps})", class_="good")


def _noise(rows: Sequence[EquivalenceRow]) -> list[Markup]:
    """What float noise decided, once a victim and float engine."""
    found = dict.fromkeys(
        f"{row.variant}, {one.engine}: float noise decided "
        f"{counted(sum(one.places.values()), 'code')} of {counted(one.images, 'image')} "
        f"({', '.join(one.places)}); logits of {one.logits:,} and labels of {one.labels:,} images "
        "differ for it."
        for row in rows
        for one in row.noise
    )
    return [note(" ".join(found))] if found else []


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
                "✗ " if row.faults else "✓ ",
                amount(row.mismatches),
                f", {row.by_noise:,} by float noise" if row.by_noise else "",
                ", differ" if row.faults else "" if row.by_noise else ", identical",
                class_="bad" if row.faults else "good",
            ),
        )
        for row in found
    ]
    head = ("Variant", "From", "To", "Compared", "Inputs", "Mismatches")
    return table("Engines compared", head, rows, ("From", "To", "Compared"))

"""Verification levels: the same integers from torch to the chip, level by level."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fpga_flow.report.runs import not_run, variants
from fpga_flow.report.schema import EquivalenceRow, Results
from fpga_flow.report.text import counted, percent


class _Level(NamedTuple):
    """One step down: its name, and the engine (or the start of its name) that it compares."""

    name: str
    engine: str
    prefix: bool = False


class Outcome(NamedTuple):
    """What came out at one level: ``kind`` is "good", "bad", "muted" or nothing."""

    kind: str
    text: str


_LEVELS = (
    _Level("quantized, in torch → QONNX", "qonnx"),
    _Level("QONNX → integer engine", "integer"),
    _Level("integer engine → FINN, after each step", "finn", prefix=True),
    _Level("integer engine → RTL", "rtl"),
    _Level("integer engine → RTL with random stalls", "rtl with stalls"),
    _Level("RTL → netlist after synthesis", "netlist"),
    _Level("RTL → chip, simulated on its pins", "chip"),
)


def verification_levels(
    results: Results, names: Sequence[str]
) -> Iterator[tuple[str, list[Outcome]]]:
    """Every level, and what came out for each of the variants; levels without a name come last."""
    yield "float → quantized, in torch", [_changed(results, name) for name in names]
    levels: dict[str, list[EquivalenceRow]] = {level.name: [] for level in _LEVELS}
    for row in results.equivalence:
        name = next((level.name for level in _LEVELS if _is(row, level)), f"{row.a} → {row.b}")
        levels.setdefault(name, []).append(row)
    for level, rows in levels.items():
        yield level, [_outcome([row for row in rows if row.variant == name]) for name in names]


def _is(row: EquivalenceRow, level: _Level) -> bool:
    return row.b.startswith(level.engine) if level.prefix else row.b == level.engine


def _changed(results: Results, name: str) -> Outcome:
    """Decisions that differ from the float reference's, mean over seeds."""
    shares = [
        row.flips_from_reference
        for row in results.victims
        if row.variant == name and row.flips_from_reference is not None
    ]
    if name not in variants(results) or not shares:
        return Outcome("muted", "not measured")
    return Outcome("", f"{percent(sum(shares) / len(shares))} decided differently")


def _outcome(rows: Sequence[EquivalenceRow]) -> Outcome:
    if not rows:
        return Outcome("muted", "– not run")
    wrong, inputs = sum(row.faults for row in rows), min(row.inputs for row in rows)
    noise = sum(row.by_noise for row in rows)
    steps = f", {counted(len(rows), 'comparison')}" if len(rows) > 1 else ""
    where = f"({counted(inputs, 'input')}{steps})"
    if wrong:
        return Outcome("bad", f"✗ {wrong:,} differ {where}")
    if noise:
        return Outcome("good", f"✓ identical but for float noise: {noise:,} {where}")
    return Outcome("good", f"✓ identical {where}")


def equivalence_line(results: Results) -> str:
    """How many comparisons of engines were made, and how many values differed."""
    rows = results.equivalence
    if not rows:
        return not_run(results, "simulate")
    wrong = [f"{row.variant} {row.a} → {row.b}" for row in rows if row.faults]
    noise = sum(row.by_noise for row in rows)
    fewest, most = min(row.inputs for row in rows), max(row.inputs for row in rows)
    inputs = f"{fewest:,} to {most:,} inputs" if fewest < most else f"{most:,} inputs"
    return (
        f"{sum(row.mismatches for row in rows):,} mismatches in "
        f"{counted(len(rows), 'comparison')} of {inputs}"
        + (f", {noise:,} of them by float noise" if noise else "")
        + (f": {', '.join(wrong)}" if wrong else "")
    )


def noise_lines(results: Results) -> list[str]:
    """What float noise decided, a sentence a victim and float engine."""
    sentences = (
        f"{row.variant}, {one.engine}: float noise decided "
        f"{counted(sum(one.places.values()), 'code')} of {counted(one.images, 'image')} "
        f"({', '.join(one.places)}); logits of {one.logits:,} and labels of {one.labels:,} images "
        "differ for it."
        for row in results.equivalence
        for one in row.noise
    )
    return list(dict.fromkeys(sentences))

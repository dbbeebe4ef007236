"""What was run, in sentences: verification levels, the lead, and the five lines of a terminal."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from divqat_brevitas.extraction.evaluation.summary import deployed
from fpga_flow.report.hardness import clones_line
from fpga_flow.report.runs import (
    class_names,
    counted,
    listed,
    not_run,
    percent,
    printable,
    variants,
    victim_spread,
)
from fpga_flow.report.schema import EquivalenceRow, Results


class _Level(NamedTuple):
    """One step down: its name, and the engine (or the start of its name) that it compares."""

    name: str
    engine: str
    prefix: bool = False

    def holds(self, row: EquivalenceRow) -> bool:
        return row.b.startswith(self.engine) if self.prefix else row.b == self.engine


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
        name = next((level.name for level in _LEVELS if level.holds(row)), f"{row.a} → {row.b}")
        levels.setdefault(name, []).append(row)
    for level, rows in levels.items():
        yield level, [_outcome([row for row in rows if row.variant == name]) for name in names]


def _changed(results: Results, name: str) -> Outcome:
    """Decisions that differ from the float reference's, mean over seeds."""
    flips = victim_spread(results, name, lambda row: row.flips_from_reference)
    if flips is None:
        return Outcome("muted", "not measured")
    return Outcome("", f"{percent(flips.mean)} decided differently")


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


RECONSTRUCTION = (
    "DivQAT here is a reconstruction from the method's public description (arXiv 2512.23948), "
    "not its authors' code; no number on this page is the paper's."
)


def lead(results: Results) -> list[str]:
    """What was measured, on which engine, data, queries and seeds; then what it does not show."""
    data = results.dataset
    train, test = ("uncounted" if n is None else f"{n:,}" for n in (data.train, data.test))
    sentences = [
        f"{counted(len(variants(results)), 'victim')} ({listed(variants(results))}) "
        f"trained on {train} and tested on {test} images of {data.name} "
        f"({len(class_names(results))} classes, {' × '.join(map(str, data.shape))})."
        if results.victims
        else f"No victim is recorded for {data.name}."
    ]
    if results.attacks:
        rows = results.attacks
        engines = sorted({row.engine for row in rows})
        oracles = listed(list(dict.fromkeys(row.oracle for row in rows)))
        pools = listed(sorted({row.pool or "unnamed" for row in rows}))
        sentences.append(
            f"{counted(len(rows), 'clone')} trained from the responses of the {listed(engines)} "
            f"{'engine' if len(engines) == 1 else 'engines'} "
            f"({oracles} responses; queries from the pools {pools}), with at most "
            f"{counted(max(row.budget for row in rows), 'query')} each; "
            f"{counted(len({row.victim_seed for row in rows}), 'victim seed')}, "
            f"{counted(len({row.seed for row in rows}), 'clone seed')}."
        )
    return [*sentences, RECONSTRUCTION]


def summary_text(results: Results, page: Path | None = None) -> str:
    """Five lines for a terminal: victims, equivalence, clones, hardware and the page's place."""
    return "\n".join(
        f"{name:<12} {' '.join(printable(text).split())}"
        for name, text in (
            ("victims", _victims_line(results)),
            ("equivalence", equivalence_line(results)),
            ("clones", clones_line(results) or not_run(results, "attack")),
            ("hardware", _hardware_line(results)),
            ("page", str(page or f"{results.run.name}/report/index.html")),
        )
    )


def _victims_line(results: Results) -> str:
    found = ((name, victim_spread(results, name, deployed)) for name in variants(results))
    told = [f"{name} {percent(spread.mean)}" for name, spread in found if spread]
    return f"{', '.join(told)} (test accuracy)" if told else not_run(results, "train")


def _hardware_line(results: Results) -> str:
    """Each design as far as it was built: a later stage's figures replace an estimate's."""
    if not results.hardware:
        return not_run(results, "compile")
    furthest = {row.variant: row for row in results.hardware}
    told = []
    for row in furthest.values():
        units = {"LUT": row.lut, "MHz": row.fmax_mhz, "images/s": row.images_per_s}
        facts = [f"{value:,.0f} {unit}" for unit, value in units.items() if value is not None]
        stage = row.stage.replace("_", " ")
        told.append(f"{row.variant} {stage} on {row.device}: {', '.join(facts) or 'no figure'}")
    return "; ".join(told)

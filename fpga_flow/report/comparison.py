"""Several runs side by side: what each victim reached, and differences with their intervals.

Runs are compared only with runs on the same data (name, shape, classes, numbers of images) that
were attacked through the same engines; the others form groups of their own. In a group every
victim stands against plain QAT of the group's first run, and against the same variant of the first
run that has it. Worst cases, differences and intervals come from
:mod:`divqat_brevitas.extraction.evaluation.summary`: paired by victim seed and attack seed, which
two runs share when their seeds are equal.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.evaluation.statistics import Difference
from divqat_brevitas.extraction.evaluation.summary import (
    BASELINE,
    accuracy_difference,
    attackers,
    deployed,
    largest_common_budget,
    worst_case,
)
from divqat_brevitas.extraction.evaluation.summary import Group as Attacked
from fpga_flow.report.claims import results_files
from fpga_flow.report.collection import read
from fpga_flow.report.runs import (
    POOLS,
    Spread,
    clone_spread,
    compared,
    image_count,
    listed,
    percent,
    printable,
    variants,
    victim_spread,
    with_interval,
)
from fpga_flow.report.schema import Results

NOTE = (
    "Ours minus theirs; in brackets a 95 % interval, paired by victim seed and attack seed. From "
    "three trained victims on it is a t-interval over victim seeds; with fewer it is about the "
    "trained models at hand, over attack seeds and test images. The worst case is chosen by its "
    "mean on each side. Nothing corrects for the number of comparisons."
)


@dataclass(frozen=True)
class NamedRun:
    """A run as the page calls it: its name, or where two share one, its path."""

    label: str
    path: str
    results: Results


@dataclass(frozen=True)
class Entry:
    """One victim of one run; ``name`` is its variant in the group's merged results."""

    run: str
    variant: str
    name: str


@dataclass(frozen=True)
class Change:
    """One quantity of a victim against another's."""

    ours: str  # the victim judged, ``run: variant``
    theirs: str  # the one it is compared with
    quantity: str  # "test accuracy", or "worst-case clone" with the kind and number of queries
    # Ours minus theirs, a fraction of 1, with intervals; None without a common pair of seeds
    difference: Difference | None
    remark: str  # what a reader has to know of it; empty if nothing

    @property
    def excludes_zero(self) -> bool | None:
        """Whether the interval does; None without one."""
        interval = None if self.difference is None else self.difference.interval
        return None if interval is None else 0 not in interval


@dataclass(frozen=True)
class Group:
    """Runs that may be compared."""

    runs: tuple[NamedRun, ...]  # in the order given
    engines: tuple[str, ...]  # the ones that were attacked
    merged: Results  # all their rows, variants renamed to ``run: variant``
    entries: tuple[Entry, ...]  # the victims
    changes: tuple[Change, ...]  # against the first run

    @property
    def title(self) -> str:
        """The data and the engines that the runs have in common."""
        data = self.merged.dataset
        engines = f"attacked through {listed(self.engines)}" if self.engines else "no engine"
        count = "" if data.test is None else f", {data.test:,} test images"
        return f"{data.name}{count}, {engines}"


def load_runs(paths: Sequence[Path]) -> list[NamedRun]:
    """Read the results at paths; an InputError names one without results, or named twice."""
    files = [file for path in paths for file in results_files(path)]
    for number, file in enumerate(files):
        if file.resolve() in [other.resolve() for other in files[:number]]:
            raise InputError(f"{file} is named twice. Name every run once.")
    found = [read(file) for file in files]
    names = [results.run.name for results in found]
    # What sets runs of one name apart: the run directory, or the file.
    places = [file.parents[1] if file.parent.name == "report" else file for file in files]
    return [
        NamedRun(name if names.count(name) == 1 else f"{name} ({place})", str(file), results)
        for name, place, file, results in zip(names, places, files, found, strict=True)
    ]


def groups(runs: Sequence[NamedRun]) -> list[Group]:
    """The runs, put together where they may be compared; in the order of their first runs."""
    alike: dict[str, list[NamedRun]] = {}
    for run in runs:
        about = run.results.dataset.model_dump(include=set(_DATA))
        alike.setdefault(repr((sorted(about.items()), _engines(run.results))), []).append(run)
    return [_group(tuple(members)) for members in alike.values()]


def document(found: Sequence[Group]) -> dict[str, Any]:
    """The comparison as one JSON document."""
    return {
        "schema": 1,
        "note": NOTE,
        "groups": [
            {
                "dataset": group.merged.dataset.model_dump(),
                "engines": list(group.engines),
                "runs": [{"name": run.label, "results": run.path} for run in group.runs],
                "victims": [_row(group, entry) for entry in group.entries],
                "differences": [asdict(change) for change in group.changes],
            }
            for group in found
        ],
    }


def worst_clone(group: Group, entry: Entry, kind: str) -> tuple[int, Spread] | None:
    """Budget and accuracy of the worst-case clone at the largest budget of a kind of queries."""
    rows = group.merged.attacks
    budgets = Attacked(entry.name, kind, 0).budgets(rows)
    if not budgets:
        return None
    worst = worst_case(attackers(Attacked(entry.name, kind, budgets[-1]).of(rows)))
    return None if worst is None else (budgets[-1], clone_spread(worst))


_SEEDS = "not the same victim seeds; only common ones count"
_DATA = ("name", "train", "test", "classes", "shape")


def _engines(results: Results) -> tuple[str, ...]:
    asked = {row.engine for row in results.attacks}
    asked |= {row.engine for row in results.victims if row.engine} if not asked else set()
    return tuple(sorted(asked))


def _group(runs: tuple[NamedRun, ...]) -> Group:
    entries = tuple(
        Entry(run.label, variant, f"{run.label}: {variant}")
        for run in runs
        for variant in variants(run.results)
    )
    victims, attacks = [], []
    for run in runs:
        for row in run.results.victims:
            victims.append(row.model_copy(update={"variant": f"{run.label}: {row.variant}"}))
        for attack in run.results.attacks:
            attacks.append(attack.model_copy(update={"victim": f"{run.label}: {attack.victim}"}))
    merged = runs[0].results.model_copy(update={"victims": victims, "attacks": attacks})
    changes = tuple(
        change
        for ours, theirs in _pairs(entries)
        for change in _changes(merged, ours.name, theirs.name)
    )
    return Group(runs, _engines(merged), merged, entries, changes)


def _pairs(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Entry]]:
    """Each victim with the group's reference, and with its like in the first run that has it."""
    if not entries:
        return
    first = [entry for entry in entries if entry.run == entries[0].run]
    reference = next((entry for entry in first if entry.variant == BASELINE), first[0])
    for ours in entries:
        like = next(entry for entry in entries if entry.variant == ours.variant)
        for theirs in dict.fromkeys((reference, like)):
            if theirs != ours:
                yield ours, theirs


def _changes(merged: Results, ours: str, theirs: str) -> Iterator[Change]:
    own = accuracy_difference(merged.victims, ours, theirs, image_count(merged))
    seeds = [{row.seed for row in merged.victims if row.variant == name} for name in (ours, theirs)]
    yield Change(ours, theirs, "test accuracy", own, "" if seeds[0] == seeds[1] else _SEEDS)
    for kind, name in POOLS.items():
        sides = (Attacked(ours, kind, 0), Attacked(theirs, kind, 0))
        budget = largest_common_budget(merged.attacks, *sides)
        if budget is None:
            continue
        mine, base = (replace(side, budget=budget) for side in sides)
        found = compared(merged, mine, base)
        if found is not None:
            quantity = f"worst-case clone, {budget:,} {name} queries"
            yield Change(ours, theirs, quantity, found.difference, _remark(merged, mine, base))


def _remark(merged: Results, ours: Attacked, theirs: Attacked) -> str:
    mine, base = (attackers(side.of(merged.attacks)) for side in (ours, theirs))
    said = []
    engines = [sorted({attacker.engine for attacker in found}) for found in (mine, base)]
    if engines[0] != engines[1]:
        said.append(f"other engines: {listed(engines[0])} and {listed(engines[1])}")
    if {attacker.method for attacker in mine} != {attacker.method for attacker in base}:
        said.append("not attacked in the same ways")
    seeds = [frozenset().union(*(a.by_victim for a in found)) for found in (mine, base)]
    if seeds[0] != seeds[1]:
        said.append(_SEEDS)
    return "; ".join(said)


def _row(group: Group, entry: Entry) -> dict[str, Any]:
    own = victim_spread(group.merged, entry.name, deployed)
    clones = {kind: worst_clone(group, entry, kind) for kind in POOLS}
    return {
        "run": entry.run,
        "variant": entry.variant,
        "seeds": sorted(row.seed for row in group.merged.victims if row.variant == entry.name),
        "accuracy": own.mean if own else None,
        "worst_case_clones": [
            {"pool_kind": kind, "budget": found[0], "accuracy": found[1].mean}
            for kind, found in clones.items()
            if found
        ],
    }


def comparison_text(found: Sequence[Group], page: Path) -> str:
    """Victims of all groups, what differs, and where the rest is; for a terminal."""
    lines = []
    for group in found:
        lines.append(group.title)
        for entry in group.entries:
            own = victim_spread(group.merged, entry.name, deployed)
            told = [f"accuracy {percent(own.mean)}"] if own else []
            for kind, name in POOLS.items():
                worst = worst_clone(group, entry, kind)
                if worst:
                    queries = f"({worst[0]:,} {name} queries)"
                    told.append(f"worst-case clone {percent(worst[1].mean)} {queries}")
            lines.append(f"  {entry.name}: {', '.join(told)}")
        sure = [change for change in group.changes if change.excludes_zero]
        lines.append(f"  intervals without zero: {len(sure)} of {len(group.changes)}")
        for change in sure:
            shown = with_interval(change.difference)
            lines.append(f"    {change.ours} against {change.theirs}, {change.quantity}: {shown}")
    return printable("\n".join([*lines, f"page {page}"]))

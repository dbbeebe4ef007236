"""The page on several runs, and the same for a terminal and for programs."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from divqat_brevitas.extraction.evaluation.summary import deployed
from divqat_brevitas.files import write_json, write_text
from fpga_flow.report.blocks import charts, fraction, note, paragraph, small
from fpga_flow.report.charts import Chart
from fpga_flow.report.comparison import (
    NOTE,
    Change,
    Entry,
    Group,
    document,
    groups,
    load_runs,
    worst_clone,
)
from fpga_flow.report.frame import Section, framed
from fpga_flow.report.frontier import budget_curves, frontiers
from fpga_flow.report.markup import Markup, amount, joined, number, table, text
from fpga_flow.report.runs import Spread, victim_spread
from fpga_flow.report.text import (
    POOLS,
    bracketed,
    counted,
    listed,
    percent,
    points,
    printable,
    with_interval,
)
from fpga_flow.report.words import RECONSTRUCTION


def write_comparison(paths: Sequence[Path], folder: Path) -> list[Group]:
    """Compare runs: ``comparison.json`` and ``index.html`` in ``folder``.

    Args:
        paths: run directories with a report, results files, or benchmark folders.
        folder: made where it is missing.

    Raises:
        InputError: no results at a path, one named twice, or the folder cannot be written.
        ToolMissingError: matplotlib, which draws the charts, is not installed.

    Example:
        >>> write_comparison([Path("runs/a"), Path("runs/b")], Path("runs/a-b"))
        ... # doctest: +SKIP
    """
    found = groups(load_runs(paths))
    write_json(folder / "comparison.json", document(found))
    write_text(folder / "index.html", comparison_page(found))
    return found


def comparison_page(found: Sequence[Group]) -> str:
    """The whole HTML document.

    Raises:
        ToolMissingError: matplotlib is not installed.
    """
    runs = [run for group in found for run in group.runs]
    sections = [
        Section(f"group-{index}", _title(group), _content(group, index, len(found) > 1))
        for index, group in enumerate(found)
    ]
    lead = [NOTE, RECONSTRUCTION]
    if len(found) > 1:
        lead.insert(
            0,
            f"These runs form {len(found)} groups, one below the other: groups differ in their "
            "data or in the engines that answered the thieves, and nothing is compared across.",
        )
    return framed(
        kind="divqat comparison of",
        name=counted(len(runs), "run"),
        heading=f"{counted(len(runs), 'run')} side by side: {listed([r.label for r in runs])}",
        answer=[],
        lead=lead,
        sections=sections,
        numbers="comparison.json",
    )


def comparison_text(found: Sequence[Group], page: Path) -> str:
    """Victims of all groups, what differs, and where the rest is; for a terminal."""
    lines = []
    for group in found:
        lines.append(_title(group))
        for entry in group.entries:
            own = victim_spread(group.merged, entry.name, deployed)
            told = [f"accuracy {percent(own.mean)}"] if own else []
            for kind, name in POOLS.items():
                worst = worst_clone(group, entry, kind)
                if worst:
                    told.append(
                        f"worst-case clone {percent(worst[1].mean)} ({worst[0]:,} {name} queries)"
                    )
            lines.append(f"  {entry.name}: {', '.join(told)}")
        sure = [change for change in group.changes if change.excludes_zero]
        lines.append(f"  intervals without zero: {len(sure)} of {len(group.changes)}")
        for change in sure:
            shown = with_interval(change.difference)
            lines.append(f"    {change.ours} against {change.theirs}, {change.quantity}: {shown}")
    return printable("\n".join([*lines, f"page {page}"]))


def _title(group: Group) -> str:
    data = group.merged.dataset
    engines = f"attacked through {listed(list(group.engines))}" if group.engines else "no engine"
    count = "" if data.test is None else f", {data.test:,} test images"
    return f"{data.name}{count}, {engines}"


def _content(group: Group, index: int, several: bool) -> list[Markup]:
    kinds = [k for k in POOLS if any(row.pool_kind == k for row in group.merged.attacks)]
    # Captions and ids are unique in the page.
    where = _title(group)
    drawn = [
        _renamed(chart, f"g{index}-", f"; {where}" if several else "")
        for chart in (*frontiers(group.merged), *budget_curves(group.merged))
    ]
    parts = [
        _victims(group, kinds, where),
        note("Worst-case clone: over all oracles and attacks, without a post-hoc defence."),
        charts(drawn),
    ]
    if not group.changes:
        return [*parts, paragraph("Nothing to compare: one victim only.")]
    return [
        *parts,
        table(
            f"Differences on {where}",
            ("Victim", "Against", "Quantity", "Difference", "Excludes zero", "Seeds", "Remark"),
            [_change(change) for change in group.changes],
            ("Against", "Quantity", "Excludes zero", "Remark"),
        ),
    ]


def _victims(group: Group, kinds: Sequence[str], where: str) -> Markup:
    head = ["Run", "Variant", "Bits", "Preset", "Seeds", "Test accuracy"]
    head += [f"Worst-case clone, {POOLS[kind]} queries" for kind in kinds]
    rows = [_row(group, entry, kinds) for entry in group.entries]
    return table(f"Victims on {where}", head, rows, ("Variant", "Bits", "Preset"))


def _row(group: Group, entry: Entry, kinds: Sequence[str]) -> tuple[object, ...]:
    rows = [row for row in group.merged.victims if row.variant == entry.name]
    own = victim_spread(group.merged, entry.name, deployed)
    clones = []
    for kind in kinds:
        worst = worst_clone(group, entry, kind)
        said = joined((_spread(worst[1]), small(f"at {worst[0]:,}"))) if worst else text(None)
        clones.append(said)
    return (
        entry.run,
        entry.variant,
        listed(list(dict.fromkeys(row.bits for row in rows))),
        listed(list(dict.fromkeys(row.preset for row in rows if row.preset))) or None,
        amount(len(rows)),
        _spread(own) if own else None,
        *clones,
    )


def _change(change: Change) -> tuple[object, ...]:
    found = change.difference
    shown = text(None)
    if found is not None:
        parts = [number(found.mean, points(found.mean))]
        parts += [small(bracketed(found.interval))] if found.interval else []
        shown = joined(parts)
    sure = {True: "yes", False: "no", None: None}[change.excludes_zero]
    seeds = amount(found.victim_seeds if found else None)
    return (
        change.ours,
        change.theirs,
        change.quantity,
        shown,
        sure,
        seeds,
        change.remark or None,
    )


def _spread(found: Spread) -> Markup:
    several = len(found.values) > 1
    extremes = f"{percent(found.low)} to {percent(found.high)}"
    return joined((fraction(found.mean), small(extremes) if several else ""))


def _renamed(chart: Chart, prefix: str, where: str) -> Chart:
    """A chart with ids and a title of its own."""
    ids = re.compile(rf'(?<=["# ]){re.escape(chart.name)}-')
    drawing = ids.sub(f"{prefix}{chart.name}-", chart.svg)
    return replace(chart, name=f"{prefix}{chart.name}", title=f"{chart.title}{where}", svg=drawing)

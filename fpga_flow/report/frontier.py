"""What protection costs: victim accuracy against the worst-case clone's, every variant tried."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from divqat_brevitas.extraction.evaluation.summary import (
    SOFT_FAMILY,
    Attacker,
    Group,
    attackers,
    deployed,
    worst_case,
)
from fpga_flow.report.charts import (
    MARKERS,
    Chart,
    Numbers,
    Series,
    bar_chart,
    chart,
    line_chart,
    said,
    whiskers,
)
from fpga_flow.report.runs import Spread, clone_spread, variants, victim_spread
from fpga_flow.report.schema import Results
from fpga_flow.report.text import POOLS, printable


def frontiers(results: Results) -> list[Chart]:
    """Victim accuracy against worst-case clone accuracy: a chart a kind of queries.

    All oracles, no post-hoc defence, the largest budget of that kind. Each worst case's attack
    is named below.
    """
    charts = []
    for kind in POOLS:
        budget = max(_budgets(results, kind), default=None)
        points = [] if budget is None else _points(results, kind, budget)
        if budget is not None and points:
            charts.append(_frontier(kind, budget, points))
    return charts


def budget_curves(results: Results) -> list[Chart]:
    """Worst-case clone accuracy over all oracles against budget, with chance as the floor.

    A chart a kind of queries, of the victims that were attacked at several budgets. Only the
    thieves count that a victim met at each of them, or more thieves would look like more queries;
    one whose soft answers were asked for at some of its budgets alone has no curve.
    """
    charts = []
    classes = results.dataset.classes
    count = classes if isinstance(classes, int) else len(classes)
    for kind in POOLS:
        lines = _curves(results, kind)
        if lines:
            told = "; ".join(
                f"{line.label} {line.spread[-1].mean:.1f} % at {line.x[-1]:,}" for line in lines
            )
            charts.append(
                line_chart(
                    f"budget-{kind}",
                    f"{POOLS[kind]} queries".capitalize(),
                    f"Worst-case clone over all oracles, of attacks made at every budget: {told}.",
                    lines,
                    "query budget",
                    "worst-case clone's accuracy, %",
                    floor=100 / count if count else None,
                )
            )
    return charts


def has_budget_curves(results: Results) -> bool:
    """Whether there is a chart of :func:`budget_curves`, without drawing it."""
    return any(_curves(results, kind) for kind in POOLS)


def _curves(results: Results, kind: str) -> list[Series]:
    found = {victim: _curve(results, victim, kind) for victim in variants(results)}
    return [
        Series(victim, colour, list(curve), list(curve.values()))
        for colour, (victim, curve) in enumerate(found.items())
        if len(curve) > 1
    ]


def _curve(results: Results, victim: str, kind: str) -> dict[int, Spread]:
    """The worst case by budget, of the attacks made at every one; {} without such."""
    met: dict[int, list[Attacker]] = {}
    for budget in Group(victim, kind, 0).budgets(results.attacks):
        met[budget] = attackers(Group(victim, kind, budget).of(results.attacks))
    keys = [{(a.method, a.engine) for a in group} for group in met.values()]
    everywhere = set.intersection(*keys) if keys else set()
    if _soft(everywhere) != any(map(_soft, keys)):
        return {}
    bests = {
        budget: worst_case([a for a in group if (a.method, a.engine) in everywhere])
        for budget, group in met.items()
    }
    return {budget: _spread(worst) for budget, worst in bests.items() if worst}


def _soft(keys: Iterable[tuple[tuple[str, ...], str]]) -> bool:
    """Whether one of the attackers saw more than labels."""
    return any(method[0] in SOFT_FAMILY for method, _ in keys)


def pool_bars(results: Results) -> Chart | None:
    """The worst case by the images that the attacker held; None where only one pool was tried.

    All oracles, no post-hoc defence, the largest budget; data-free attacks hold no images.
    """
    rows = [row for row in results.attacks if row.pool and row.pool_kind in ("in", "out")]
    rows = [row for row in rows if row.defence in (None, "none")]
    most = max((row.budget for row in rows), default=0)
    rows = [row for row in rows if row.budget == most]
    # Out-of-distribution first; the page's readers look for those.
    pools = sorted({(row.pool_kind != "out", row.pool or "") for row in rows})
    if len(pools) < 2:
        return None
    names = [name for name in variants(results) if any(row.victim == name for row in rows)]
    series: dict[str, list[Spread | None]] = {}
    for name in names:
        worst_of = (
            worst_case(attackers(r for r in rows if (r.victim, r.pool) == (name, pool)))
            for _, pool in pools
        )
        series[name] = [_spread(worst) if worst else None for worst in worst_of]
    told = "; ".join(
        f"{name} "
        + ", ".join(
            f"{pool} {value.mean:.1f} %"
            for (_, pool), value in zip(pools, values, strict=True)
            if value
        )
        for name, values in series.items()
    )
    return bar_chart(
        "pools",
        f"By the attacker's images, {most:,} queries",
        f"Worst-case clone by pool: {told}.",
        ["victim's kind" if pool == "in" else pool for _, pool in pools],
        series,
        "worst-case clone's accuracy, %",
        limits=(0, 100),
        colours=[variants(results).index(name) for name in names],
    )


_Point = tuple[str, int, Spread, Attacker]
"""Variant, its colour, its own accuracy, the worst case against it."""


def _points(results: Results, kind: str, budget: int) -> list[_Point]:
    points = []
    for colour, victim in enumerate(variants(results)):
        own = victim_spread(results, victim, deployed)
        worst = worst_case(attackers(Group(victim, kind, budget).of(results.attacks)))
        if own and worst:
            points.append((victim, colour, own.scaled(100), worst))
    return points


def _frontier(kind: str, budget: int, points: Sequence[_Point]) -> Chart:
    # What all attacks have in common is said once, above their names.
    parts = [worst.method[1:] for _, _, _, worst in points]
    shared = [len(set(column)) == 1 for column in zip(*parts, strict=True)]
    common = " / ".join(part for part, same in zip(parts[0], shared, strict=True) if same)

    def draw(axes: Any, ink: Mapping[str, str]) -> None:
        for victim, colour, own, worst in points:
            clone = _spread(worst)
            ours = [part for part, same in zip(worst.method[1:], shared, strict=True) if not same]
            name = " ".join([*([" / ".join(ours)] if ours else []), "on", worst.oracle])
            ink_of = ink[f"series-{colour % 8}"]
            axes.errorbar(
                [own.mean],
                [clone.mean],
                xerr=whiskers([own]),
                yerr=whiskers([clone]),
                fmt="none",
                ecolor=ink_of,
                capsize=3,
            )
            # Apart from its whiskers, which would hide it in the legend.
            axes.plot(
                [own.mean],
                [clone.mean],
                label=printable(f"{victim}: {name}"),
                color=ink_of,
                marker=MARKERS[colour % len(MARKERS)],
                markersize=7,
                linestyle="none",
            )
        # Where clone and victim are equal, as far as the points reach.
        low, high = axes.get_xlim()
        axes.autoscale(False)
        axes.axline((low, low), (high, high), color=ink["grid"], zorder=0)
        axes.set_xlabel("victim's accuracy, %")
        axes.set_ylabel("worst-case clone's accuracy, %")
        axes.grid()
        axes.figure.legend(
            loc="outside lower left",
            fontsize=7,  # a attack's name is long
            title=printable(f"Worst-case attack: {common}") if common else None,
            title_fontsize=7,
            alignment="left",
        )

    numbers = Numbers(
        ("Victim", "its accuracy, %", "worst-case clone's accuracy, %", "worst-case attack"),
        [(victim, said(own), said(_spread(worst)), worst.name) for victim, _, own, worst in points],
    )
    told = "; ".join(
        f"{victim} {own.mean:.1f} % and {_spread(worst).mean:.1f} % ({worst.name})"
        for victim, _, own, worst in points
    )
    return chart(
        f"frontier-{kind}",
        f"{POOLS[kind].capitalize()} queries, {budget:,}",
        f"Victim's accuracy and the worst-case clone's: {told}.",
        draw,
        numbers,
        size=(5.2, 3.2 + 0.2 * len(points)),
    )


def _spread(worst: Attacker) -> Spread:
    return clone_spread(worst).scaled(100)


def _budgets(results: Results, kind: str) -> list[int]:
    return sorted(
        {
            row.budget
            for row in results.attacks
            if row.pool_kind == kind and row.defence in (None, "none")
        }
    )

"""What protection costs: victim accuracy against the best clone's, every variant tried."""

from collections.abc import Mapping, Sequence
from typing import Any

from fpga_flow.report.analysis import Spread, deployed, variants, victim_spread
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
from fpga_flow.report.contest import ALL_ORACLES, Side, Thief, best, thieves
from fpga_flow.report.schema import Results
from fpga_flow.report.statistics import seed_means
from fpga_flow.report.text import printable
from fpga_flow.report.words import POOLS

_KINDS = ("out", "in", "free")


def frontiers(results: Results) -> list[Chart]:
    """Victim accuracy against worst-case clone accuracy: a chart a kind of queries.

    All oracles, no post-hoc defence, the largest budget of that kind. The thief of each worst case
    is named below.
    """
    charts = []
    for kind in _KINDS:
        budget = max(_budgets(results, kind), default=None)
        points = [] if budget is None else _points(results, kind, budget)
        if budget is not None and points:
            charts.append(_frontier(kind, budget, points))
    return charts


def budget_curves(results: Results) -> list[Chart]:
    """Worst-case clone accuracy over all oracles against budget, with chance as the floor."""
    charts = []
    classes = results.dataset.classes
    count = classes if isinstance(classes, int) else len(classes)
    for kind in _KINDS:
        lines = []
        for colour, victim in enumerate(variants(results)):
            found = {
                budget: _spread(thief)
                for budget in _budgets(results, kind)
                if (thief := _best(results, victim, kind, budget))
            }
            if found:
                lines.append(Series(victim, colour, list(found), list(found.values())))
        if lines:
            told = "; ".join(
                f"{line.label} {line.spread[-1].mean:.1f} % at {line.x[-1]:,}" for line in lines
            )
            charts.append(
                line_chart(
                    f"budget-{kind}",
                    f"{POOLS[kind]} queries".capitalize(),
                    f"Best clone over all oracles: {told}.",
                    lines,
                    "query budget",
                    "best clone's accuracy, %",
                    floor=100 / count if count else None,
                )
            )
    return charts


def pool_bars(results: Results) -> Chart | None:
    """The best clone by the images that the thief held; None where only one pool was tried.

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
        thief_of = (
            best(thieves(row for row in rows if (row.victim, row.pool) == (name, pool)))
            for _, pool in pools
        )
        series[name] = [_spread(thief) if thief else None for thief in thief_of]
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
        f"By the thief's images, {most:,} queries",
        f"Best clone by pool: {told}.",
        ["victim's kind" if pool == "in" else pool for _, pool in pools],
        series,
        "best clone's accuracy, %",
        limits=(0, 100),
        colours=[variants(results).index(name) for name in names],
    )


_Point = tuple[str, int, Spread, Thief]
"""Variant, its colour, its own accuracy, the best thief against it."""


def _points(results: Results, kind: str, budget: int) -> list[_Point]:
    points = []
    for colour, victim in enumerate(variants(results)):
        own = victim_spread(results, victim, deployed)
        thief = _best(results, victim, kind, budget)
        if own and thief:
            points.append((victim, colour, own.scaled(100), thief))
    return points


def _frontier(kind: str, budget: int, points: Sequence[_Point]) -> Chart:
    def draw(axes: Any, ink: Mapping[str, str]) -> None:
        for victim, colour, own, thief in points:
            clone = _spread(thief)
            name = " / ".join(thief.key[1:5])
            axes.errorbar(
                [own.mean],
                [clone.mean],
                xerr=whiskers([own]),
                yerr=whiskers([clone]),
                label=printable(f"{victim}: {name} on {thief.key[0]}"),
                color=ink[f"series-{colour % 8}"],
                marker=MARKERS[colour % len(MARKERS)],
                markersize=7,
                linestyle="none",
                capsize=3,
            )
        # Where clone and victim are equal, as far as the points reach.
        low, high = axes.get_xlim()
        axes.autoscale(False)
        axes.axline((low, low), (high, high), color=ink["grid"], zorder=0)
        axes.set_xlabel("victim's accuracy, %")
        axes.set_ylabel("best clone's accuracy, %")
        axes.grid()
        axes.figure.legend(loc="outside lower left", fontsize=7)  # a thief's name is long

    numbers = Numbers(
        ("Victim", "its accuracy, %", "best clone's accuracy, %", "best thief"),
        [(victim, said(own), said(_spread(thief)), thief.name) for victim, _, own, thief in points],
    )
    told = "; ".join(
        f"{victim} {own.mean:.1f} % and {_spread(thief).mean:.1f} % ({thief.name})"
        for victim, _, own, thief in points
    )
    return chart(
        f"frontier-{kind}",
        f"{POOLS[kind].capitalize()} queries, {budget:,}",
        f"Victim's accuracy and best clone's: {told}.",
        draw,
        numbers,
        size=(5.2, 3.0 + 0.2 * len(points)),
    )


def _best(results: Results, victim: str, kind: str, budget: int) -> Thief | None:
    return best(thieves(Side(victim, ALL_ORACLES, kind, budget).rows(results)))


def _spread(thief: Thief) -> Spread:
    return Spread(tuple(100 * mean for mean in seed_means(thief.values).values()))


def _budgets(results: Results, kind: str) -> list[int]:
    return sorted(
        {
            row.budget
            for row in results.attacks
            if row.pool_kind == kind and row.defence in (None, "none")
        }
    )

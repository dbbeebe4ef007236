"""The two figures of the results' page: worst-case clones, and what more queries buy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.extraction.results import GATED
from benchmarks.extraction.scenarios import Scenario
from benchmarks.extraction.tables import largest_budgets, title, worst_of
from divqat_brevitas.errors import ToolMissingError
from divqat_brevitas.extraction.evaluation.summary import (
    BASELINE,
    Attacker,
    Group,
    attackers,
    worst_case,
)
from divqat_brevitas.files import replacing
from fpga_flow.report.runs import POOLS
from fpga_flow.report.schema import Results

# Okabe and Ito's colours that are read on white and on black.
_COLOURS = ("#0072b2", "#d55e00", "#009e73")
_MARKERS = "osD"
_GREY = "#808080"


def write_plots(
    found: Mapping[str, Results], scenarios: Sequence[Scenario], folder: Path
) -> list[Path]:
    """Write ``clones.svg`` and, where there are several budgets, ``budgets.svg``.

    Args:
        found: results by name.
        scenarios: each names the one protected victim of its data set that is drawn.
        folder: where the figures go.

    Raises:
        ToolMissingError: matplotlib is not installed.
    """
    panels = []
    for scenario in scenarios:
        for results in found.values():
            if results.dataset.name == scenario.recipe["dataset"] and scenario.gated:
                victim = scenario.experiment(scenario.gated[0]).label + GATED
                panels.append((results, victim))
    paths = []
    if panels:
        paths.append(_figure(folder / "clones.svg", [_bars(*panel) for panel in panels]))
    curves = [draw for panel in panels if (draw := _curves(*panel)) is not None]
    if curves:
        paths.append(_figure(folder / "budgets.svg", curves))
    return paths


def _groups(victim: str, kind: str, budget: int) -> list[tuple[str, Group]]:
    plain = Group(BASELINE, kind, budget)
    return [
        ("plain QAT", plain),
        ("decoy + label-only fallback", Group(victim, kind, budget)),
        ("plain QAT, labels only", Group(BASELINE, kind, budget, ("top1",))),
    ]


def _bars(results: Results, victim: str) -> Any:
    """Worst-case clones by kind of query pool."""

    def draw(axes: Any) -> None:
        budgets = {k: b for k, b in largest_budgets(results).items() if k != "free"}
        for row, (kind, budget) in enumerate(budgets.items()):
            for at, (label, group) in enumerate(_groups(victim, kind, budget)):
                worst = worst_of(results, group)
                if worst is not None:
                    mean, deviation = _spread(worst)
                    axes.barh(
                        -row + 0.25 - 0.25 * at,
                        mean,
                        0.22,
                        xerr=deviation,
                        color=_COLOURS[at],
                        ecolor=_GREY,
                        label=label if row == 0 else None,
                    )
        axes.set_yticks([-row for row in range(len(budgets))], [POOLS[kind] for kind in budgets])
        axes.set_xlim(0, 100)
        axes.set_xlabel("worst-case clone's accuracy, %")
        axes.set_title(title(results))

    return draw


def _curves(results: Results, victim: str) -> Any:
    """Worst-case clones by budget; None without several budgets."""
    series = {}
    for label, group in _groups(victim, "out", 0):
        met = {
            budget: attackers(Group(group.victim, "out", budget, group.oracles).of(results.attacks))
            for budget in group.budgets(results.attacks)
        }
        # Only attackers that were run at every budget: more attackers would look like more queries.
        everywhere = set.intersection(*({a.method for a in own} for own in met.values()), *[])
        bests = {
            budget: worst_case([a for a in own if a.method in everywhere])
            for budget, own in met.items()
        }
        points = {budget: _spread(best) for budget, best in bests.items() if best is not None}
        if len(points) > 1:
            series[label] = points
    if not series:
        return None

    def draw(axes: Any) -> None:
        for at, (label, points) in enumerate(series.items()):
            axes.errorbar(
                list(points),
                [mean for mean, _ in points.values()],
                [deviation for _, deviation in points.values()],
                color=_COLOURS[at],
                marker=_MARKERS[at],
                label=label,
            )
        axes.set_xscale("log")
        budgets = sorted({budget for points in series.values() for budget in points})
        axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
        axes.set_xticks([], minor=True)
        axes.set_ylim(0, 100)
        axes.set_xlabel("queries, out-of-distribution")
        axes.set_ylabel("clone's accuracy, %")
        axes.set_title(title(results))

    return draw


def _spread(attacker: Attacker) -> tuple[float, float]:
    """Mean and standard deviation over victim seeds, in per cent."""
    values = [100 * value for value in attacker.by_victim.values()]
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


def _figure(path: Path, draws: Sequence[Any]) -> Path:
    """Draw panels side by side, without a background and without a date."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ToolMissingError("plots need matplotlib: pip install 'divqat[report]'.") from e
    style = {
        "svg.hashsalt": "divqat",
        "svg.fonttype": "none",
        "font.size": 9,
        "text.color": _GREY,
        "axes.labelcolor": _GREY,
        "axes.edgecolor": _GREY,
        "xtick.color": _GREY,
        "ytick.color": _GREY,
    }
    with mpl.rc_context(style):
        columns = min(2, len(draws))
        rows = -(-len(draws) // columns)
        figure = Figure(figsize=(4.8 * columns, 2.4 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes, draw in zip(grid, draws, strict=False):
            draw(axes)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_facecolor("none")
        for axes in list(grid)[len(draws) :]:
            axes.set_visible(False)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="svg", transparent=True, metadata={"Date": None})
    return path

"""The report's charts: which numbers of the results each one draws."""

from collections.abc import Iterable
from dataclasses import replace

from divqat_brevitas.extraction.evaluation.summary import (
    Group,
    attackers,
    defence_of,
    deployed,
    worst_case,
)
from fpga_flow.report.charts import Chart, Series, bar_chart, line_chart
from fpga_flow.report.runs import Spread, clone_spread, variants, victim_spread
from fpga_flow.report.schema import Results
from fpga_flow.report.text import POOLS


def victim_accuracy(results: Results) -> Chart | None:
    """Victims' test accuracy by variant, torch beside the engine; None without victims."""
    names = variants(results)
    if not names:
        return None
    torch = [victim_spread(results, name, lambda row: row.accuracy) for name in names]
    engine = [victim_spread(results, name, lambda row: row.accuracy_engine) for name in names]
    series: dict[str, list[Spread | None]] = {"torch": torch}
    if any(engine):
        series["engine"] = engine
    said = "; ".join(
        f"{name} {100 * value.mean:.1f} %"
        for name, value in zip(names, torch, strict=True)
        if value
    )
    return bar_chart(
        "victims",
        "Victims' test accuracy",
        f"Test accuracy in torch: {said}.",
        names,
        {
            label: [value and value.scaled(100) for value in values]
            for label, values in series.items()
        },
        "test accuracy, %",
        limits=(0, 109),
        label_bars=True,
        longest=12,
    )


def clone_curves(results: Results) -> list[Chart]:
    """Worst-case clone accuracy against query budget: a chart an oracle, kind of pool, defence."""
    rows = results.attacks
    panels = dict.fromkeys((row.oracle, row.pool_kind, defence_of(row)) for row in rows)
    known = dict.fromkeys([*variants(results), *(row.victim for row in rows)])
    charts = []
    for number, (oracle, kind, defence) in enumerate(panels):
        lines = []
        for colour, victim in enumerate(known):
            group = Group(victim, kind, 0, (oracle,), defence)
            best = {
                budget: clone_spread(worst).scaled(100)
                for budget in group.budgets(rows)
                if (worst := worst_case(attackers(replace(group, budget=budget).of(rows))))
            }
            if best:
                lines.append(Series(victim, colour, list(best), list(best.values())))
        said = "; ".join(
            f"{line.label} {line.spread[-1].mean:.1f} % at {line.x[-1]:,} queries" for line in lines
        )
        title = f"{oracle} answers, {POOLS[kind]} queries"
        charts.append(
            line_chart(
                f"clones-{number}",
                title if defence == "none" else f"{title}, {defence}",
                f"Worst-case clone's test accuracy by victim: {said}.",
                lines,
                "query budget",
                "worst-case clone's accuracy, %",
                band=_ceiling(results, [line.label for line in lines]),
            )
        )
    return charts


def training_curves(results: Results) -> list[Chart]:
    """What ``train/metrics.jsonl`` recorded over epochs, mean over seeds; one chart a quantity."""
    charts = []
    for number, (key, label) in enumerate(_QUANTITIES.items()):
        scale = 100 if key.endswith("_accuracy") else 1
        points: dict[str, dict[float, list[float]]] = {}
        for row in results.training:
            x, y = row.get("epoch"), row.get(key)
            if isinstance(x, int | float) and isinstance(y, int | float):
                name = str(row.get("variant", "model"))
                points.setdefault(name, {}).setdefault(x, []).append(scale * y)
        # A variant has one colour on the whole page.
        known = list(dict.fromkeys([*variants(results), *points]))
        lines = [
            Series(
                name,
                known.index(name),
                sorted(found),
                [Spread(tuple(found[x])) for x in sorted(found)],
            )
            for name, found in points.items()
        ]
        if lines:
            said = "; ".join(f"{line.label} ends at {line.spread[-1].mean:.3g}" for line in lines)
            charts.append(
                line_chart(
                    f"training-{number}",
                    label.partition(",")[0].capitalize(),
                    f"{label} by epoch: {said}.",
                    lines,
                    "epoch",
                    label,
                )
            )
    return charts


_QUANTITIES = {
    "val_accuracy": "validation accuracy, %",
    "loss": "training loss, all terms",
    "cross_entropy": "cross-entropy of training",
    "divergence": "divergence from the reference",
    "train_accuracy": "accuracy in training, %",
    "learning_rate": "learning rate",
}


def _ceiling(results: Results, victims: Iterable[str]) -> Spread | None:
    """The attacked victims' own accuracies, %: what a perfect clone would reach."""
    names = set(victims)
    values = tuple(100 * deployed(row) for row in results.victims if row.variant in names)
    return Spread(values) if values else None

"""The pages: self-contained HTML from the templates, pure functions of the results.

No script, nothing loaded from elsewhere, everything escaped. A part that did not run says so, and
why. Numbers carry their exact value in ``<data value>``.
"""

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from divqat_brevitas.extraction.evaluation.summary import BASELINE, MATCHED, deployed
from fpga_flow.report import run_charts
from fpga_flow.report.charts import Chart
from fpga_flow.report.claims import claims, count_text, counts, no_claims
from fpga_flow.report.collection import LARGEST
from fpga_flow.report.comparison import NOTE, Entry, Group, worst_clone
from fpga_flow.report.hardness import hardness, heading, sentence, worst_cases
from fpga_flow.report.runs import (
    POOLS,
    Spread,
    bracketed,
    class_names,
    counted,
    defended,
    in_order,
    listed,
    not_run,
    percent,
    points,
    printable,
    victim_spread,
)
from fpga_flow.report.schema import AttackRow, LayerRow, Results, VictimRow
from fpga_flow.report.summary import (
    RECONSTRUCTION,
    equivalence_line,
    lead,
    noise_lines,
    verification_levels,
)

SECTIONS = {
    "models": "How hard is this model to steal?",
    "claims": "Claims about the method",
    "costs": "What protection costs",
    "attacks": "What attackers got",
    "detection": "When attackers are noticed",
    "ownership": "How clones are recognised",
    "examples": "Responses with and without the defence",
    "confusion": "Confusion matrices",
    "victims": "Victims",
    "equivalence": "The same integers on every engine",
    "hardware": "Hardware",
    "layers": "Layers and their cost",
    "training": "Training",
    "limits": "What this does not show",
    "reproduce": "How to reproduce this run",
}
"""The sections of a run's page, by name: each is a template in ``templates/sections``."""


def page(results: Results) -> str:
    """The page of a run; a ToolMissingError says that matplotlib is not installed."""
    models = hardness(results)
    return _environment().get_template("page.html.j2").render(
        kind="divqat run",
        name=results.run.name,
        heading=heading(results),
        findings=[sentence(row) for row in models if row.victim == models[0].victim],
        lead=lead(results),
        sections=SECTIONS,
        numbers="report/results.json",
        results=results,
        models=models,
        claims=claims(results),
        worst_cases=worst_cases(results),
    )  # fmt: skip


def comparison_page(groups: Sequence[Group]) -> str:
    """The page on several runs; a ToolMissingError says that matplotlib is not installed."""
    runs = [run for group in groups for run in group.runs]
    about = [NOTE, RECONSTRUCTION]
    if len(groups) > 1:
        about.insert(
            0,
            f"These runs form {len(groups)} groups, one below the other: groups differ in their "
            "data or in the engines that were attacked, and nothing is compared across groups.",
        )
    return _environment().get_template("comparison.html.j2").render(
        kind="divqat comparison of",
        name=counted(len(runs), "run"),
        heading=f"{counted(len(runs), 'run')} side by side: {listed([r.label for r in runs])}",
        findings=[],
        lead=about,
        sections={f"group-{index}": group.title for index, group in enumerate(groups)},
        numbers="comparison.json",
        groups=groups,
    )  # fmt: skip


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fpga_flow.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printed,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _NUMBERS | {
        "show": lambda value, kind: value if kind == "text" else _NUMBERS[kind](value),
        "ranked": lambda shares: sorted(enumerate(shares), key=lambda item: -item[1]),
    }
    functions: list[Callable[..., Any]] = [accuracy, alike_layers, comparison_charts, pool_kinds]
    functions += [bracketed, counted, counts, count_text, listed, percent, seeds]
    functions += [class_names, defended, in_order, verification_levels, worst_clone]
    functions += [equivalence_line, no_claims, noise_lines, not_run]
    environment.globals |= {function.__name__: function for function in functions}
    environment.globals |= {
        "BASELINE": BASELINE,
        "LARGEST": LARGEST,
        "MATCHED": MATCHED,
        "POOLS": POOLS,
        "RECONSTRUCTION": RECONSTRUCTION,
        "charts": run_charts,
        "quote": shlex.quote,
    }
    environment.globals["m"] = environment.get_template("macros.html.j2").module
    return environment


def _printed(value: Any) -> Any:
    """What a template prints for a value; it escapes what is not markup."""
    if isinstance(value, Markup):
        return value
    return "–" if value is None else printable(value)


def _number(text: Callable[[float], str]) -> Callable[[float | None], Markup | None]:
    """A filter to ``<data value="0.9734">97.3 %</data>``: the text, and the exact value."""

    def element(value: float | None) -> Markup | None:
        markup = Markup('<data value="{!r}">{}</data>')
        return None if value is None else markup.format(value, text(value))

    return element


def _amount(value: float) -> str:
    """A count, or a measure with four significant digits below a thousand."""
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.4g}"


_NUMBERS = {
    "amount": _number(_amount),
    "decimal": _number("{:.3f}".format),
    "fraction": _number(percent),
    "points": _number(points),
}


def alike_layers(results: Results) -> list[tuple[str, list[LayerRow]]]:
    """Layers of each exported network, with the names of all the variants that have them."""
    alike: dict[str, list[str]] = {}
    for variant in in_order(results, results.layers):
        alike.setdefault(repr(results.layers[variant]), []).append(variant)
    return [(listed(names), results.layers[names[0]]) for names in alike.values()]


def seeds(rows: Iterable[VictimRow | AttackRow]) -> str:
    """The seeds of victims or clones: ``0, 1 and 2``."""
    return listed([str(seed) for seed in sorted({row.seed for row in rows})]) or "none"


def accuracy(group: Group, entry: Entry) -> Spread | None:
    """A victim's test accuracy on its engine."""
    return victim_spread(group.merged, entry.name, deployed)


def pool_kinds(results: Results) -> dict[str, str]:
    """Kinds of query pools that were attacked with, and the head of their column."""
    kinds = {row.pool_kind for row in results.attacks}
    return {k: f"Worst-case clone, {name} queries" for k, name in POOLS.items() if k in kinds}


def comparison_charts(group: Group, index: int, place: str) -> list[Chart]:
    """Charts of a group, whose names and titles are unique in a page of several."""
    return [
        replace(
            chart,
            name=f"g{index}-{chart.name}",
            title=f"{chart.title}; {place}" if place else chart.title,
        )
        for chart in (
            *run_charts.frontiers(group.merged),
            *run_charts.budget_curves(group.merged),
        )
    ]

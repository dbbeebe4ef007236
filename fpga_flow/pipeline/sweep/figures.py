"""A finished run's key figures, and the table of a sweep made from them."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from divqat_brevitas.files import write_json, write_text
from fpga_flow.console import columns
from fpga_flow.pipeline.sweep.grid import SweepTask
from fpga_flow.pipeline.sweep.run import RESULT, folder_of, last_event
from fpga_flow.pipeline.tasks import recorded


def key_figures(run: Path) -> dict[str, float]:
    """Accuracies of a run, by name.

    Args:
        run: a run directory in which at least ``train`` is done.

    Returns:
        ``accuracy.VARIANT`` (mean over training seeds), ``clone.VICTIM.POOL_KIND`` (the worst case
        over all oracles at the largest budget) and, for each oracle and budget,
        ``naive.VICTIM.ORACLE.POOL_KIND.BUDGET`` and ``worst.VICTIM.ORACLE.POOL_KIND.BUDGET``.
        A victim behind a defence is ``VICTIM + DEFENCE``. All are fractions of 1 on test data.
    """
    from fpga_flow.report import collect
    from fpga_flow.report.hardness import hardness
    from fpga_flow.report.runs import named

    results = collect(run)
    by_variant: dict[str, list[float]] = {}
    for victim in results.victims:
        by_variant.setdefault(victim.variant, []).append(victim.accuracy)
    figures = {f"accuracy.{variant}": fmean(values) for variant, values in by_variant.items()}
    for model in hardness(results):
        figures[f"clone.{model.victim}.{model.group.pool_kind}"] = model.worst.mean
    for row in results.summary:
        where = f"{named(row.victim, row.defence)}.{row.oracle}.{row.pool_kind}.{row.budget}"
        if row.naive_clone_accuracy is not None:
            figures[f"naive.{where}"] = row.naive_clone_accuracy
        figures[f"worst.{where}"] = row.worst_case_clone_accuracy
    return figures


def rows(tasks: Sequence[SweepTask], out: Path, states: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row a task: name, folder, state, settings, seconds and figures.

    Args:
        tasks: the sweep's.
        out: its folder.
        states: what became of tasks just now, by name; else what their folders say: "start" is
            a task that runs, or ran when it was killed.
    """
    table = []
    for task in tasks:
        folder = folder_of(out, task)
        record = recorded(folder / RESULT, task.key) or {}
        row: dict[str, Any] = {
            "task": task.name,
            "folder": folder.relative_to(out).as_posix(),
            "state": states.get(task.name) or record.get("state") or last_event(folder) or "left",
        }
        row |= {"settings": task.settings, "seconds": record.get("seconds")}
        table.append(row | {"figures": record.get("figures", {})})
    return table


def write_table(table: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write ``summary.json`` and ``summary.csv`` (a column a setting and a figure) to ``out``."""
    write_json(out / "summary.json", {"schema": 1, "tasks": list(table)})
    settings, figures = _names(table, "settings"), _names(table, "figures")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", "state", *settings, *figures, "seconds", "folder"])
    for row in table:
        values = [row["settings"].get(name) for name in settings]
        measured = [row["figures"].get(name) for name in figures]
        writer.writerow(
            [row["task"], row["state"], *values, *measured, row["seconds"], row["folder"]]
        )
    write_text(out / "summary.csv", text.getvalue())


def table_text(table: Sequence[Mapping[str, Any]]) -> str:
    """The rows for a terminal: settings, accuracies, and the worst-case clones, in per cent."""
    settings = _names(table, "settings")
    figures = _names(table, "figures")
    variants = [name.removeprefix("accuracy.") for name in figures if name.startswith("accuracy.")]
    clone_keys = [name for name in figures if name.startswith("clone.")]
    clones = (name.removeprefix("clone.").rpartition(".") for name in clone_keys)
    header = [*settings, "state", *variants, *(f"clone of {v}, {kind}" for v, _, kind in clones)]
    lines: list[list[object]] = [[*header]]
    for row in table:
        found = row["figures"]
        line: list[object] = [row["settings"].get(name) for name in settings]
        line += [row["state"], *(_percent(found.get(f"accuracy.{v}")) for v in variants)]
        lines.append([*line, *(_percent(found.get(clone)) for clone in clone_keys)])
    return columns(lines)


def _names(table: Sequence[Mapping[str, Any]], part: str) -> list[str]:
    """The keys of all rows' ``part``, in the order met."""
    return list(dict.fromkeys(name for row in table for name in row[part]))


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.1f}"

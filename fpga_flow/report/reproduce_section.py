"""How to make the run again: command, settings, seeds, versions, and the hashes to compare."""

import shlex
from collections.abc import Iterable

from fpga_flow.report.blocks import folded, note, paragraph
from fpga_flow.report.markup import Markup, element, table
from fpga_flow.report.schema import Results
from fpga_flow.report.text import counted, listed


def reproduce(results: Results) -> list[Markup]:
    """Command, settings, seeds, versions and how each stage ended."""
    run = results.run
    command = f"divqat run config.toml --out {shlex.quote(f'runs/{run.name}')}"
    parts = [
        paragraph("Save the settings below as config.toml and run, with the versions below:"),
        _code("Command", command),
        folded("Settings", _code("Settings", run.config))
        if run.config
        else paragraph("The run directory holds no config.toml."),
        element(
            "p",
            f"Victim seeds: {_seeds(row.seed for row in results.victims)}. "
            f"Clone seeds: {_seeds(row.seed for row in results.attacks)}.",
        ),
    ]
    if run.versions:
        parts.append(
            table("Versions", ("Package", "Version"), list(run.versions.items()), ("Version",))
        )
    if run.files:
        lines = "\n".join(f"{digest}  {path}" for path, digest in run.files.items())
        sums = _code("SHA-256", lines)
        same = (
            "In the form of sha256sum: in the run directory, `sha256sum --check` compares. Equal "
            "to the last bit with equal versions, processor and number of threads; elsewhere "
            "weights may differ in their last bits."
        )
        parts.append(folded(f"SHA-256 of {counted(len(run.files), 'file')}", note(same), sums))
    if run.stages:
        parts.append(
            table(
                "Stages",
                ("Stage", "Outcome", "Reason"),
                [(name, stage.status, stage.reason) for name, stage in run.stages.items()],
                ("Outcome", "Reason"),
            )
        )
    return parts


def _code(name: str, content: str) -> Markup:
    """Text as it is, scrolled by keyboard where it is too wide."""
    code = element("code", content)
    return element("pre", code, tabindex=0, role="region", aria_label=name)


def _seeds(seeds: Iterable[int]) -> str:
    return listed([str(seed) for seed in sorted(set(seeds))]) or "none"

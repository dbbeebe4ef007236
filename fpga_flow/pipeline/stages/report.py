"""Report: everything the stages wrote, as report/results.json and report/index.html."""

from pathlib import Path

from fpga_flow import report
from fpga_flow.pipeline.stages.context import StageContext


def run(context: StageContext) -> None:
    """Write both, and the charts as files; the numbers stay where the page cannot be drawn."""
    from fpga_flow.pipeline.stages import evidence  # engines: `summary` does without

    evidence.gather(context)
    context.output("results.json")
    results = report.build_report(context.run.path)
    context.output("index.html")
    report.write_figures(results, context.output("figures"))


def summary(directory: Path) -> str:
    """The five lines a terminal shows after a run."""
    folder = directory / "report"
    return report.summary_text(report.read(folder / "results.json"), folder / "index.html")

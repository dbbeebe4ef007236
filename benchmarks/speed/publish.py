"""The page of speeds and the README's block, made from the records alone."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.pages import rewrite_block, table
from benchmarks.speed.runner import read_records
from benchmarks.speed.suite import Record, load_suite
from divqat_brevitas.files import write_text


def publish(folder: Path, readme: Path | None = None) -> list[Path]:
    """Write ``folder/README.md``, the suites' figures and the block ``speed`` of ``readme``.

    Raises:
        InputError: no record, a damaged or quick one, or a page without marks.

    Example:
        >>> publish(Path("benchmarks/speed"), Path("README.md"))  # doctest: +SKIP
    """
    records = read_records(folder)
    write_text(folder / "README.md", page(records))
    if readme is not None:
        rewrite_block(readme, "speed", block(records))
    return [folder / "README.md", *_figures(records, folder), *([] if readme is None else [readme])]


def _figures(records: Mapping[str, Record], folder: Path) -> list[Path]:
    """Write ``folder/<suite>.svg`` of every suite that draws one."""
    paths = []
    for name, record in records.items():
        draw = getattr(load_suite(name), "figure", None)
        if draw is not None:
            paths.append(folder / f"{name}.svg")
            write_text(paths[-1], draw(record["result"]))
    return paths


def page(records: Mapping[str, Record]) -> str:
    """The whole page: a section a suite, each with what it ran on."""
    lines = [
        "# Speed",
        "",
        "Made by `divqat bench speed --publish` from the JSON files beside it, which hold every "
        "sample, the versions, the processor's instruction sets and the hash of the source. "
        "Contestants take turns (A B C, C B A, ...); given are medians over the rounds with "
        "quartiles in brackets, and a ratio is the median of the ratios within a round. "
        "Measure again: `divqat bench speed`.",
        "",
    ]
    for name, record in records.items():
        section = load_suite(name).section(record["result"])
        lines += [f"## {section.title}", "", *section.lines, "", _conditions(name, record), ""]
    return "\n".join(lines)


def block(records: Mapping[str, Record]) -> str:
    """The README's table: the summary lines of every suite."""
    rows = [
        (line.what, line.ours, line.value, line.beside)
        for name, record in records.items()
        for line in load_suite(name).section(record["result"]).summary
    ]
    return "\n".join(table(("What is compared", "Ours", "Ratio", "To"), rows)).strip()


def _conditions(name: str, record: Record) -> str:
    where = record["environment"]
    cpu, load = where["cpu"], record["load"]["before"]
    busy = "" if load is None else f", load average {load[0]:.1f} at the start"
    return (
        f"*`divqat bench speed --suite {name}`: {record['rounds']} rounds, {where['threads']} "
        f"thread(s) of {cpu['usable']} cores, {cpu['model']}{busy}; source "
        f"`{where['source'][:12]}`.*"
    )

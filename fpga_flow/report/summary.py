"""What was run, in sentences, and the terminal's five lines."""

from pathlib import Path

from divqat_brevitas.extraction.evaluation.summary import deployed
from fpga_flow.report.hardness import clones_line
from fpga_flow.report.runs import class_names, not_run, variants, victim_spread
from fpga_flow.report.schema import Results
from fpga_flow.report.text import counted, listed, percent, printable
from fpga_flow.report.verification import equivalence_line

RECONSTRUCTION = (
    "DivQAT here is a reconstruction from the method's public description (arXiv 2512.23948), "
    "not its authors' code; no number on this page is the paper's."
)


def lead(results: Results) -> list[str]:
    """What was measured, on which engine, data, queries and seeds; then what it does not show."""
    data = results.dataset
    sentences = [
        f"{counted(len(variants(results)), 'victim')} ({listed(variants(results))}) "
        f"trained on {_count(data.train)} and tested on {_count(data.test)} images of {data.name} "
        f"({len(class_names(results))} classes, {' × '.join(map(str, data.shape))})."
        if results.victims
        else f"No victim is recorded for {data.name}."
    ]
    if results.attacks:
        rows = results.attacks
        engines = sorted({row.engine for row in rows})
        oracles = listed(list(dict.fromkeys(row.oracle for row in rows)))
        pools = listed(sorted({row.pool or "unnamed" for row in rows}))
        sentences.append(
            f"{counted(len(rows), 'clone')} trained from the answers of the {listed(engines)} "
            f"{'engine' if len(engines) == 1 else 'engines'} "
            f"({oracles} answers; queries from the pools {pools}), with at most "
            f"{counted(max(row.budget for row in rows), 'query')} each; "
            f"{counted(len({row.victim_seed for row in rows}), 'victim seed')}, "
            f"{counted(len({row.seed for row in rows}), 'clone seed')}."
        )
    return [*sentences, RECONSTRUCTION]


def _count(images: int | None) -> str:
    return "uncounted" if images is None else f"{images:,}"


def summary_text(results: Results, page: Path | None = None) -> str:
    """Five lines for a terminal: victims, equivalence, clones, hardware and the page.

    Args:
        results: the run.
        page: where the page is; without it, its place in the run directory.

    Example:
        >>> print(summary_text(results))  # doctest: +SKIP
        victims      float 98.1 %, ptq 95.0 %, qat 97.5 %, divqat 97.2 % (test accuracy)
        ...
    """
    return "\n".join(
        f"{name:<12} {' '.join(printable(text).split())}"
        for name, text in (
            ("victims", _victims_line(results)),
            ("equivalence", equivalence_line(results)),
            ("clones", clones_line(results) or not_run(results, "attack")),
            ("hardware", _hardware_line(results)),
            ("page", str(page or f"{results.run.name}/report/index.html")),
        )
    )


def _victims_line(results: Results) -> str:
    found = ((name, victim_spread(results, name, deployed)) for name in variants(results))
    told = [f"{name} {percent(spread.mean)}" for name, spread in found if spread]
    return f"{', '.join(told)} (test accuracy)" if told else not_run(results, "train")


def _hardware_line(results: Results) -> str:
    """Each design as far as it was built: a later stage's figures replace an estimate's."""
    if not results.hardware:
        return not_run(results, "compile")
    furthest = {row.variant: row for row in results.hardware}
    told = []
    for row in furthest.values():
        facts = [f"{row.lut:,.0f} LUT"] if row.lut is not None else []
        facts += [f"{row.fmax_mhz:,.0f} MHz"] if row.fmax_mhz is not None else []
        facts += [f"{row.images_per_s:,.0f} images/s"] if row.images_per_s is not None else []
        stage = row.stage.replace("_", " ")
        told.append(f"{row.variant} {stage} on {row.device}: {', '.join(facts) or 'no figure'}")
    return "; ".join(told)

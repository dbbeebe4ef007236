"""What was run, in sentences, and the terminal's five lines."""

from pathlib import Path

from divqat_brevitas.extraction.evaluation.summary import deployed
from fpga_flow.report.hardness import clones_line
from fpga_flow.report.runs import variants, victim_spread
from fpga_flow.report.schema import Results
from fpga_flow.report.text import counted, listed, percent, printable

RECONSTRUCTION = (
    "DivQAT here is a reconstruction from the method's public description (arXiv 2512.23948), "
    "not its authors' code; no number on this page is the paper's."
)


def not_run(results: Results, stage: str) -> str:
    """Why a stage left nothing to show: ``not run: <reason>`` and its like."""
    found = results.run.stages.get(stage)
    if found is None or found.status == "not-run":
        why = found.reason if found else None
        return f"not run: {why or 'this stage is not recorded in the run'}"
    if found.status == "missing-tool":
        return f"not run: {found.reason or 'a tool it needs is not installed'}"
    if found.status == "failed":
        return f"failed: {found.reason or 'the run gives no reason'}"
    if found.status == "running":
        return "not run: the stage was begun and is not finished"
    return "the stage ran, and recorded nothing of this kind"


def lead(results: Results) -> list[str]:
    """What was measured, on which engine, data, queries and seeds; then what it does not show."""
    data = results.dataset
    classes = data.classes if isinstance(data.classes, int) else len(data.classes)
    sentences = [
        f"{counted(len(variants(results)), 'victim')} ({listed(variants(results))}) "
        f"trained on {_count(data.train)} and tested on {_count(data.test)} images of {data.name} "
        f"({classes} classes, {' × '.join(map(str, data.shape))})."
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


def equivalence_line(results: Results) -> str:
    """How many comparisons of engines were made, and how many values differed."""
    rows = results.equivalence
    if not rows:
        return not_run(results, "simulate")
    wrong = [f"{row.variant} {row.a} → {row.b}" for row in rows if row.faults]
    noise = sum(row.by_noise for row in rows)
    fewest, most = min(row.inputs for row in rows), max(row.inputs for row in rows)
    inputs = f"{fewest:,} to {most:,} inputs" if fewest < most else f"{most:,} inputs"
    return (
        f"{sum(row.mismatches for row in rows):,} mismatches in "
        f"{counted(len(rows), 'comparison')} of {inputs}"
        + (f", {noise:,} of them by float noise" if noise else "")
        + (f": {', '.join(wrong)}" if wrong else "")
    )


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

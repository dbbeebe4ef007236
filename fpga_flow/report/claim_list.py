"""How hard the trained models are to steal, and the method's claims: `divqat report --claims`."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import InputError
from fpga_flow.report.claims import Claim, claims, count_text, counts, no_claims
from fpga_flow.report.collection import read
from fpga_flow.report.hardness import hardness, line, records
from fpga_flow.report.schema import Results
from fpga_flow.report.text import bracketed, counted, percent, printable, with_interval

NOTE = (
    "The worst case is the attacker's best mean over victim seeds, chosen on the numbers shown, "
    "which errs against the defence. Of claims, in brackets: 95 % t-interval over victim seeds; "
    "'boot': hierarchical bootstrap, which at few seeds is too narrow. No correction is made for "
    "the number of claims."
)


def results_files(path: Path) -> list[Path]:
    """What a path means: a results file, a run directory, or a benchmark's folder.

    Raises:
        InputError: none of the three.
    """
    if path.is_file():
        return [path]
    for found in (path / "report" / "results.json", path / "results.json"):
        if found.is_file():
            return [found]
    found_many = sorted(path.glob("results-*.json"))
    if not found_many:
        raise InputError(
            f"{path} holds no results: name a run directory with a report (`divqat report DIR` "
            "writes one), a results.json, or a folder with results-<dataset>.json "
            "(`divqat bench extraction --publish` writes those of the benchmark)."
        )
    return found_many


def claims_document(path: Path) -> dict[str, Any]:
    """The models' worst cases and all claims of all results at ``path``, as one JSON document.

    Raises:
        InputError: no results there, or they are not schema 1.
    """
    return {
        "note": NOTE,
        "results": [{"file": str(file), **_document(read(file))} for file in results_files(path)],
    }


def claims_text(path: Path) -> str:
    """The same for people.

    Raises:
        InputError: as :func:`claims_document`.
    """
    parts = [_text(read(file)) for file in results_files(path)]
    return "\n\n".join([*parts, NOTE])


def _document(results: Results) -> dict[str, Any]:
    found = claims(results)
    return {
        "dataset": results.dataset.name,
        "models": records(results),
        "claims": [asdict(claim) for claim in found],
        "count": {name: dict(count) for name, count in counts(found).items()},
    }


def _text(results: Results) -> str:
    found, rows = claims(results), hardness(results)
    lines = [results.dataset.name, "  How hard are these models to steal?"]
    lines += [f"    {line(row)}" for row in rows] or ["    Not attacked yet."]
    lines.append("  What holds of the method?")
    lines += [f"    {claim}: {count_text(count)}" for claim, count in counts(found).items()]
    lines += [f"    {part}" for claim in found for part in _lines(claim)]
    lines += [] if found else [f"    {no_claims(results)}"]
    return printable("\n".join(lines))


def _lines(claim: Claim) -> Iterator[str]:
    setting = [f"answers: {claim.answers}" if claim.answers else None, claim.pool_kind]
    setting.append(None if claim.budget is None else counted(claim.budget, "query"))
    where = ", ".join(part for part in setting if part)
    yield f"[{claim.verdict}] {claim.claim}: {claim.victim} against {claim.against}" + (
        f" ({where})" if where else ""
    )
    found = claim.difference
    boot = f", boot {bracketed(found.bootstrap)}" if found.bootstrap else ""
    clones = ""
    if claim.clone_accuracy is not None and claim.baseline_clone_accuracy is not None:
        clones = (
            f"; clones {percent(claim.clone_accuracy)} and {percent(claim.baseline_clone_accuracy)}"
        )
    yield (
        f"    {with_interval(found)}{boot}; {counted(found.victim_seeds, 'victim seed')}, "
        f"{counted(found.pairs, 'pair')}{clones}"
    )
    yield f"    {claim.reason}"
    if claim.attack is not None:
        yield f"    worst-case attack: {claim.attack}; on the baseline: {claim.baseline_attack}"

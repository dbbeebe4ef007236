"""Build a network with FINN in a worker process; the result appears whole or not at all."""

import dataclasses
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import in_place_of, sha256_file, write_json
from fpga_flow.compile.compile_settings import CompileSettings
from fpga_flow.compile.finn_build import RECORD, FinnBuild
from fpga_flow.compile.folding_file import read_folding
from fpga_flow.compile.legality import legality
from fpga_flow.compile.worker_process import Worker, require_finn

LOG = "finn.log"


def compile_finn(
    onnx_path: Path, out_dir: Path, settings: CompileSettings, worker: Worker | None = None
) -> FinnBuild:
    """Build a network with FINN up to its RTL code and estimates, without Vivado.

    FINN runs in a process of its own, with a home directory of its own. The build appears in
    ``out_dir`` whole or not at all: it grows in a hidden sibling folder, which is then renamed.
    A failing build leaves a former one as it was; its log is ``out_dir/finn.log`` either way.
    One build a folder at a time.

    Args:
        onnx_path: a QONNX file (batch 1; logits as output).
        out_dir: folder of the build; a former build in it is replaced.
        settings: target and style.
        worker: runs FINN, for several builds one after the other; it keeps the log. None: a
            process of this build's own.

    Returns:
        the finished build.

    Raises:
        ToolMissingError: finn-plus is not installed.
        InputError: no QONNX file, a network FINN has no hardware for (node and remedy named),
            an unknown board, or a folding that does not fit.
        BuildError: a step of FINN failed, or the worker died or ran out of time.

    Example:
        >>> build = compile_finn(
        ...     Path("model.onnx"), Path("build"), CompileSettings()
        ... )  # doctest: +SKIP
        >>> build.estimates.images_per_s  # doctest: +SKIP
        1062.7
    """
    require_finn()
    onnx_path, out_dir = Path(onnx_path).absolute(), Path(out_dir).absolute()
    refuse_illegal(onnx_path)
    if settings.folding_json is not None:
        read_folding(settings.folding_json)
    growing = out_dir.parent / f".{out_dir.name}.building"
    with in_place_of(out_dir, "FINN build", RECORD, LOG):
        shutil.rmtree(growing, ignore_errors=True)  # left by a killed build
        try:
            growing.mkdir(parents=True)
            out_dir.mkdir(exist_ok=True)
            _build(onnx_path, growing, out_dir / LOG, settings, worker)
            shutil.copy(out_dir / LOG, growing / LOG)
            _replace(out_dir, growing)
        finally:
            shutil.rmtree(growing, ignore_errors=True)
    return FinnBuild.load(out_dir)


def _build(
    onnx_path: Path, folder: Path, log: Path, settings: CompileSettings, worker: Worker | None
) -> None:
    work = folder / "work"
    work.mkdir()
    asked = dataclasses.asdict(settings)
    if settings.folding_json is not None:
        asked["folding_json"] = str(settings.folding_json.absolute())
    log.write_text("")
    job = {"kind": "build", "onnx": str(onnx_path), "folder": str(folder), "settings": asked}
    with Worker(work, log) if worker is None else nullcontext(worker) as running:
        report = running.run(job, settings.timeout_s)
    shutil.rmtree(work)
    write_json(folder / "estimates.json", report["estimates"])
    write_json(folder / RECORD, _record(report, onnx_path, settings))


def _record(report: dict[str, Any], onnx_path: Path, settings: CompileSettings) -> dict[str, Any]:
    kept = {name: value for name, value in report.items() if name != "estimates"}
    return {
        "device": settings.device,
        "clock_ns": settings.clock_ns,
        "onnx_sha256": sha256_file(onnx_path),
        **kept,
    }


def _replace(out_dir: Path, grown: Path) -> None:
    """Put ``grown`` in the place of ``out_dir``; killed in between, there is no build at all."""
    former = out_dir.parent / f".{out_dir.name}.former"
    shutil.rmtree(former, ignore_errors=True)
    out_dir.rename(former)
    grown.rename(out_dir)
    shutil.rmtree(former, ignore_errors=True)


def refuse_illegal(onnx_path: Path) -> None:
    """Refuse a network FINN has no hardware for.

    Raises:
        InputError: the first finding of ``legality``, and how many more there are.
    """
    findings = legality(onnx_path)
    if findings:
        more = f" ({len(findings) - 1} more findings: `divqat check`.)" if findings[1:] else ""
        raise InputError(f"{onnx_path.name}: FINN has no hardware for it. {findings[0]}{more}")

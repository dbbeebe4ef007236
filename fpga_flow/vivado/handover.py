"""Hand a network to stock FINN and AMD's tools: bitfile, PYNQ driver, deployment package.

Vivado was never part of our machines: everything up to its call is tested, and the calls against
a stand-in that records them. What Vivado makes of it was not run.
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import ToolMissingError
from divqat_brevitas.files import in_place_of, sha256_file, write_json
from fpga_flow.compile.configuration import VivadoSettings
from fpga_flow.compile.finn_yaml import write_finn_config
from fpga_flow.compile.worker_process import BuildError, Worker, python_path, require_finn
from fpga_flow.targets import VivadoTarget

RECORD = "vivado.json"
LOG = "finn.log"


class VivadoMissingError(ToolMissingError):
    """FINN came as far as it does without AMD's tools; what it made is kept.

    Attributes:
        folder: of the build.
        step: FINN's step that needed a tool.
        lacks: one phrase a missing thing.
        not_run: the steps that were not run, ``step`` first.
    """

    def __init__(self, folder: Path, step: str, lacks: list[str], not_run: list[str]) -> None:
        self.folder = folder
        self.step = step
        self.lacks = tuple(lacks)
        self.not_run = tuple(not_run)
        super().__init__(
            f"the bitfile needs AMD's tools. FINN came to {step}; not run: {', '.join(not_run)}. "
            f"This machine lacks: {'; '.join(lacks)}. Install them, source Vivado's "
            f"settings64.sh and run the same command again. What FINN made without them is kept "
            f"in {folder}: models, reports, code (work/finn), driver, and finn.yaml to go on with "
            "elsewhere. A target of the open flow, such as ecp5-85f, needs none of these tools."
        )


@dataclass(frozen=True)
class VivadoBuild:
    """What a finished build by stock FINN leaves in its folder."""

    # Holds ``finn.yaml``, ``folding.json``, ``report/``, ``intermediate_models/``,
    # ``stitched_ip/``, ``bitfile/``, ``driver/``, ``deploy/``, ``finn.log`` and ``work/finn``,
    # FINN's working files
    folder: Path
    bitfile: Path  # for the board
    # Folder of the PYNQ driver's settings; the driver is the pip package ``finn-plus-driver``
    driver: Path
    deploy: Path  # folder to be copied to the board: bitfile and driver
    seconds: dict[str, float]  # step -> seconds it took
    fifos: str  # how FIFOs were sized: ``distributed_sim`` or ``force_minimal_fifos``


def build_vivado(onnx_path: Path, out_dir: Path, settings: VivadoSettings) -> VivadoBuild:
    """Build a network by stock FINN with our steps, up to bitfile and PYNQ driver.

    The configuration is the one of ``write_finn_config`` (``out_dir/finn.yaml``). FINN runs in a
    worker process. A former build in ``out_dir`` is replaced. Unlike ``compile_finn``, a build that
    stops keeps what it made: a bitfile takes an hour.

    Raises:
        VivadoMissingError: a tool or file is missing, after everything that needs none was made;
            lists what is missing. It is a ToolMissingError.
        ToolMissingError: finn-plus is not installed.
        InputError: no QONNX file (batch 1; logits as output), a network FINN has no hardware for,
            or a folding that does not fit.
        BuildError: FINN or Vivado failed, with everything there.

    Example:
        >>> build_vivado(Path("model.onnx"), Path("z1"), VivadoSettings()).bitfile  # doctest: +SKIP
        PosixPath('z1/bitfile/finn-accel.bit')
    """
    require_finn()
    onnx_path, out_dir = Path(onnx_path).absolute(), Path(out_dir).absolute()
    with in_place_of(out_dir, "FINN build", RECORD, LOG):
        shutil.rmtree(out_dir, ignore_errors=True)
        out_dir.mkdir(parents=True)
        (out_dir / LOG).write_text("")
    config = write_finn_config(onnx_path, out_dir, settings)
    work = out_dir / "work"
    work.mkdir()
    present = find_tool("vivado") is not None
    job = {
        "kind": "call",
        "function": "fpga_flow.vivado.stock_build:build_for_vivado",
        "onnx": str(onnx_path),
        "config": str(config.yaml),
        "folder": str(out_dir),
        "with_vivado": present,
    }
    environment = _environment(work, present)
    with Worker(work, out_dir / LOG, environment=environment) as worker:
        report = worker.run(job, settings.timeout_s)
    # FINN's working files stay, whose paths are in its scripts; the rest goes.
    shutil.rmtree(work / "home", ignore_errors=True)
    for file in work.glob("*.json"):
        file.unlink()
    stopped = report["stopped"]
    lacks = lacking(settings.board, report["hls"], Path(report["dependencies"])) if stopped else []
    write_json(out_dir / RECORD, _record(onnx_path, settings, report, lacks))
    if stopped is not None:
        if lacks:
            raise VivadoMissingError(out_dir, stopped["step"], lacks, report["not_run"])
        log = out_dir / LOG
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:]
        why = stopped["message"].rstrip(". ")
        raise BuildError(stopped["step"], why, log, "\n".join(lines))
    return _finished(out_dir, report)


def _environment(work: Path, present: bool) -> dict[str, str]:
    """Ours, FINN's settings included, with FINN's working files in ``work``.

    The home directory stays where Vivado is there: it holds licences. Elsewhere FINN gets one of
    its own, and the user's FINN settings by their path.
    """
    build, home = work / "finn", work / "home"
    build.mkdir()
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {
        "FINN_BUILD_DIR": str(build),
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": python_path(),
    }
    if not present:
        settings = Path("~/.finn/settings.yaml").expanduser()
        if settings.exists():
            environment.setdefault("FINN_SETTINGS", str(settings))
        return environment | {"HOME": str(home), "NUM_DEFAULT_WORKERS": "1"}
    vivado = environment.get("XILINX_VIVADO")
    if vivado is not None:  # where the simulator's libraries are, as FINN's own command sets it
        paths = (f"{vivado}/lib/lnx64.o", environment.get("LD_LIBRARY_PATH"))
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, paths))
    return environment


def _record(
    onnx_path: Path, settings: VivadoSettings, report: dict[str, Any], lacks: list[str]
) -> dict[str, Any]:
    version = vivado_version()
    return {
        "target": settings.board.name,
        "device": settings.board.board,
        "clock_ns": settings.clock_ns,
        "onnx_sha256": sha256_file(onnx_path),
        "status": "bitfile" if report["stopped"] is None else "stopped",
        "stopped": report["stopped"],
        "not_run": report["not_run"],
        "lacks": lacks,
        "fifos": report["fifos"],
        "hls_layers": report["hls"],
        "seconds": report["seconds"],
        "versions": report["versions"] | {"vivado": version and f"{version[0]}.{version[1]}"},
    }


def _finished(folder: Path, report: dict[str, Any]) -> VivadoBuild:
    bitfiles = sorted((folder / "bitfile").glob("finn-accel*.*"))
    wanted = [path for path in bitfiles if path.suffix in (".bit", ".xclbin")]
    if not wanted:
        files = "\n".join(map(str, bitfiles))
        raise BuildError("step_synthesize_bitfile", "left no bitfile", folder / LOG, files)
    return VivadoBuild(
        folder=folder,
        bitfile=wanted[0],
        driver=folder / "driver",
        deploy=folder / "deploy",
        seconds=report["seconds"],
        fifos=report["fifos"],
    )


_OVERRIDE = "FINN_TOOL_DIR_OVERRIDE"
_VERSION = re.compile(r"\b(20\d{2})\.([12])\b")
# Since this version Vitis HLS is called by vitis-run.
_VITIS_RUN = (2025, 1)


def find_tool(name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Path of a vendor tool, looked for as FINN does: its override folder, else PATH."""
    folder = environment.get(_OVERRIDE)
    if folder:
        return shutil.which(str(Path(folder) / name))
    return shutil.which(name, path=environment.get("PATH"))


def vivado_version(environment: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """Year and half of the Vivado that XILINX_VIVADO names, as FINN reads it; None: unknown."""
    found = _VERSION.search(environment.get("XILINX_VIVADO", ""))
    return None if found is None else (int(found[1]), int(found[2]))


def lacking(
    board: VivadoTarget,
    hls_layers: Sequence[str],
    dependencies: Path,
    environment: Mapping[str, str] = os.environ,
) -> list[str]:
    """What a bitfile for ``board`` needs and this machine does not have, one phrase a thing.

    ``hls_layers`` are layers that FINN has as HLS code only, ``dependencies`` is FINN's folder of
    downloaded parts. Each phrase says what is missing, and where it was looked for.
    """
    missing = []
    where = environment.get(_OVERRIDE) or "PATH"
    if find_tool("vivado", environment) is None:
        missing.append(f"vivado (not in {where})")
    if vivado_version(environment) is None:
        value = environment.get("XILINX_VIVADO")
        said = "is not set" if value is None else f"is {value!r}, without a version such as 2023.2"
        missing.append(f"Vivado's settings, settings64.sh (XILINX_VIVADO {said})")
    missing += _lacking_hls(hls_layers, where, environment)
    if board.shell == "vitis_alveo" and find_tool("v++", environment) is None:
        missing.append(f"v++ of Vitis, for an Alveo card (not in {where})")
    if not (dependencies / "finn-hlslib").is_dir():
        missing.append(f"finn-hlslib (not in {dependencies}; `finn deps update` fetches it)")
    files = dependencies / "board_files"
    if board.shell == "vivado_zynq" and not (files.is_dir() and any(files.iterdir())):
        missing.append(
            f"board files of {board.board} (not in {files}; `finn deps update` fetches them)"
        )
    return missing


def _lacking_hls(layers: Sequence[str], where: str, environment: Mapping[str, str]) -> list[str]:
    version = vivado_version(environment)
    if version is None:
        names: tuple[str, ...] = ("vitis_hls", "vitis-run")
    else:
        names = ("vitis-run",) if version >= _VITIS_RUN else ("vitis_hls",)
    if any(find_tool(name, environment) for name in names):
        return []
    of_network = f", and for the network's {', '.join(layers)}" if layers else ""
    return [
        f"Vitis HLS, {' or '.join(names)} (not in {where}), for the DMA layers that FINN adds"
        f"{of_network}"
    ]

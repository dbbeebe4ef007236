"""What ``divqat check`` calls legal, built by FINN and executed, or simulated as a hardware design.

One worker process serves all networks: importing FINN takes longer than building a small one.
"""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from comparing import prediction_differences
from drawing import Images

from divqat_brevitas.errors import DivQATError
from fpga_flow.compile import CompileSettings, FinnBuild, compile_finn, legality
from fpga_flow.compile.step_outputs import FinnSession
from fpga_flow.compile.worker_process import Worker
from fpga_flow.engines.rtl import RtlEngine
from fpga_flow.lowering import Network
from fpga_flow.rtl import generate_design
from fpga_flow.rtl.refusals import rtl_findings


def why_not(path: Path, engine: str) -> str:
    """What ``check`` finds, for the engine "finn" or "rtl"; empty: nothing."""
    findings = legality(path) or (rtl_findings(path) if engine == "rtl" else [])
    return f"check: {findings[0].op}: {findings[0].problem}" if findings else ""


def hardware_differences(
    engine: str, path: Path, network: Network, images: Images, folder: Path
) -> Iterator[str]:
    """Where a legal network does not build, or differs from its int64 definition.

    Args:
        engine: "finn" or "rtl".
        path: the QONNX file.
        network: its lowering.
        images: float32 (N, ...).
        folder: for the build.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            build = compile_finn(path, Path(place) / "build", CompileSettings(), _worker())
            if engine == "finn":
                yield from _executed(build, network, images)
            else:
                yield from _simulated(build, Path(place), network, images)
    except DivQATError as e:
        said = " ".join(str(e).split())[:240]
        yield f"check finds nothing, and {engine} refuses: {type(e).__name__}: {said}"


def _executed(build: FinnBuild, network: Network, images: Images) -> Iterator[str]:
    with FinnSession(build, _worker()) as session:
        last = list(build.steps)[-1]

        def predict(part: Images) -> Images:
            return session.run(last, part).logits

        yield from prediction_differences("finn", predict, network, images)


def _simulated(build: FinnBuild, folder: Path, network: Network, images: Images) -> Iterator[str]:
    design = generate_design(build, folder / "design", worker=_worker())
    with RtlEngine(design, threads=1) as engine:
        yield from prediction_differences("rtl", engine.predict, network, images)


_WORKERS: list[Worker] = []


def _worker() -> Worker:
    """The worker of this process; another one where the last died."""
    if not _WORKERS or not _WORKERS[-1].alive:
        folder = Path(tempfile.mkdtemp(prefix="divqat-random-finn-"))
        _WORKERS.append(Worker(folder, folder / "finn.log"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        atexit.register(_WORKERS[-1].close)
    return _WORKERS[-1]

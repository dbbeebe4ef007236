"""Engines: one interface to everything that executes a QONNX file."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, overload

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import unknown_name
from divqat_brevitas.plugins import Registry

if TYPE_CHECKING:
    from fpga_flow.lowering.answer import AnswerUnit


class Engine(Protocol):
    """Executes a classifier on batches of images.

    Attributes:
        name: which engine this is, for reports.
    """

    name: str

    def predict(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits, float32 (N, classes), of float32 images (N, *shape) in the input range."""
        ...

    def accumulators(self, images: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.int64]]:
        """Integer accumulators (N, ...) by layer name; all of them stay in memory."""
        ...


class Answering(Engine, Protocol):
    """An engine with an answer unit: ``predict`` gives what a host makes of the codes."""

    def answers(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Integer codes (N, classes), or a label (N, 1), of float32 images (N, C, H, W)."""
        ...


def _integer(path: Path) -> Engine:
    from fpga_flow.integer.engine import IntegerEngine

    return IntegerEngine(path)


def _qonnx(path: Path) -> Engine:
    from fpga_flow.export.execution import QonnxEngine

    return QonnxEngine(path)


def _finn(path: Path) -> Engine:
    from fpga_flow.engines.finn import FinnEngine

    return FinnEngine(path)


def _rtl(path: Path) -> Engine:
    from fpga_flow.engines.rtl import RtlEngine

    return RtlEngine(path)


ENGINES: Registry[Callable[[Path], Engine]] = Registry(
    "engine",
    "divqat.engines",
    {"integer": _integer, "qonnx": _qonnx, "finn": _finn, "rtl": _rtl},
    fits=callable,
    expected="a class or function that takes a QONNX file's path and gives an Engine",
    reserved=("torch",),
)
"""All engines by name, those of installed packages among them, by the path of a QONNX file."""


@overload
def load_engine(path: Path | str, engine: str = "integer", answer: None = None) -> Engine: ...
@overload
def load_engine(
    path: Path | str,
    engine: str = "integer",
    answer: "AnswerUnit | str" = ...,
    calibration: npt.NDArray[np.float32] | None = None,
) -> Answering: ...
def load_engine(
    path: Path | str,
    engine: str = "integer",
    answer: "AnswerUnit | str | None" = None,
    calibration: npt.NDArray[np.float32] | None = None,
) -> Engine:
    """Load a QONNX file into an engine.

    Args:
        path: a QONNX file; for "finn" and "rtl" also the folder of a FINN build.
        engine: "integer" (exact, fast), "qonnx" (QONNX's own execution, float), "finn" (FINN's
            graph after streamlining, needs finn-plus), "rtl" (the generated hardware in
            Verilator; takes a hardware design's or a FINN build's folder too), or the name of a
            plug-in's.
        answer: what leaves the chip in place of logits: an answer unit, or the name of one
            ("top1", "topk:3", "rounded:3", "posterior:2", "gated:0", "reject:keyed" with the
            empty key; see ``fpga_flow.lowering.answer``).
            None: logits, or what a hardware design in ``path`` was compiled with.
        calibration: training images, float32 (N, C, H, W) in [0, 1], that the step of a named
            answer is chosen from; "top1" and "reject" need none.

    Raises:
        InputError: unknown engine or answer, an answer without calibration, a design with
            another answer, or a file that is no QONNX model.
        LoweringError: a model that cannot become integers, with the node named.
        ToolMissingError: the engine's packages are not installed.

    Example:
        >>> labels = load_engine("model.onnx").predict(images).argmax(axis=1)
        >>> answers = load_engine("model.onnx", answer="top1").answers(images)
        >>> bool((answers[:, 0] == labels).all())
        True
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    if isinstance(answer, str):
        from fpga_flow.engines.answering import answer_unit, needs_file

        answer = answer_unit(needs_file(path), answer, calibration)
    if answer is None:
        return ENGINES[engine](Path(path))
    if engine == "rtl":  # has the unit in hardware
        from fpga_flow.engines.rtl import RtlEngine

        return RtlEngine(path, answer=answer)
    from fpga_flow.engines.answering import AnsweringEngine

    return AnsweringEngine(ENGINES[engine](Path(path)), answer)

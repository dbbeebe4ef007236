"""Who takes part in the benchmark of engines: calls from a batch of images to logits."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks.speed.exported import Exported
from divqat_brevitas.errors import ToolMissingError
from fpga_flow.integer.engine import IntegerEngine

Images = npt.NDArray[np.float32]
Racer = Callable[[Images], npt.NDArray[np.float32]]


def software(
    network: Exported, engine: IntegerEngine, threads: int
) -> tuple[dict[str, Racer], dict[str, str]]:
    """Engines that are ordinary software by name, and why others are not among them.

    Args:
        network: what they execute.
        engine: the integer engine on it.
        threads: of ONNX Runtime; PyTorch's are set for the process.
    """
    from fpga_flow.export.execution import QonnxEngine

    @cache
    def qonnx(batch: int) -> QonnxEngine:
        return QonnxEngine(network.qonnx, batch=batch)

    found: dict[str, Racer] = {
        "integer": engine.predict,
        "torch": _module(network.float_model),
        "brevitas": _module(network.model),
        "qonnx": lambda images: qonnx(len(images)).predict(images),
    }
    if find_spec("onnxruntime") is None:
        return found, {"onnxruntime": "onnxruntime is not installed (extra finn)"}
    found["onnxruntime"] = _onnxruntime(network, threads)
    return found, {}


def _module(module: nn.Module) -> Racer:
    def run(images: Images) -> npt.NDArray[np.float32]:
        # Channels last is what PyTorch's convolutions are fastest in.
        batch = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = module(batch).numpy()
        return logits

    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return run


def _onnxruntime(network: Exported, threads: int) -> Racer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(
        str(network.float_onnx), options, providers=["CPUExecutionProvider"]
    )

    def run(images: Images) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = session.run(None, {"images": images})[0]
        return logits

    return run


@contextmanager
def hardware(network: Exported, threads: int) -> Iterator[tuple[dict[str, Racer], dict[str, str]]]:
    """FINN's and Verilator's simulations by name, and why others are not among them.

    They are built on entering, which takes minutes; their processes end on leaving.
    """
    from fpga_flow.engines.finn import FinnEngine
    from fpga_flow.engines.rtl import RtlEngine

    found: dict[str, Racer] = {}
    lacking = {"finn-cpp": _no_cpp()}
    with ExitStack() as stack:
        try:
            finn = FinnEngine(network.qonnx)
            stack.callback(finn.close)
            found["finn"] = finn.predict
            rtl = RtlEngine(network.qonnx, threads=threads)
            stack.callback(rtl.close)
            found["rtl"] = rtl.predict
        except ToolMissingError as e:
            lacking |= {name: str(e) for name in ("finn", "rtl") if name not in found}
        yield found, lacking


def _no_cpp() -> str:
    if "XILINX_HLS" not in os.environ and "XILINX_VITIS" not in os.environ:
        return "FINN compiles it with the headers and libraries of Vitis HLS, which is not here"
    return "this benchmark does not drive Vitis HLS"

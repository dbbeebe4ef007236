"""A finished FINN build on disk: what it holds, and what reports take from it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering.input_step import InputStep
from fpga_flow.untrusted.onnx_sizes import MAX_ELEMENTS

RECORD = "build.json"


@dataclass(frozen=True)
class LayerEstimate:
    """FINN's estimate for one hardware layer.

    Attributes:
        name: FINN's node name, such as ``MVAU_rtl_0``.
        cycles: clock cycles an image.
        lut: look-up tables.
        bram: block RAMs of 18 Kibit.
        uram: UltraRAMs.
        dsp: DSP blocks.
        pe: processing elements (outputs at a time), None where the layer has none.
        simd: inputs at a time, None where the layer has none.
    """

    name: str
    cycles: float
    lut: float
    bram: float
    uram: float
    dsp: float
    pe: int | None
    simd: int | None


@dataclass(frozen=True)
class Estimates(ShortRepr):
    """FINN's estimates of a whole network; units as in ``LayerEstimate``.

    Attributes:
        layers: one a hardware layer, in network order.
        cycles_per_image: cycles of the slowest layer, which sets the rate.
        slowest_layer: its name.
        latency_cycles: cycles from the first pixel to the last output.
        images_per_s: at the clock asked for.
    """

    layers: tuple[LayerEstimate, ...]
    lut: float
    bram: float
    uram: float
    dsp: float
    cycles_per_image: int
    slowest_layer: str
    latency_cycles: int
    images_per_s: float


@dataclass(frozen=True)
class FinnBuild(ShortRepr):
    """What ``compile_finn`` leaves in a folder.

    Attributes:
        folder: holds ``build.json``, ``models/``, ``estimates.json``, ``folding.json``,
            ``rtl/<layer>/``, ``report/`` (FINN's own reports) and ``finn.log``.
        steps: step name -> ONNX model after it, in the order they ran.
        seconds: step name -> seconds it took.
        estimates: cycles and resources.
        folding: the folding used, as a folding JSON that can be given back.
        rtl: generated Verilog, SystemVerilog and memory files, one folder a layer.
        versions: of finn-plus, qonnx and onnx.
        device: board or part.
        activations: QONNX tensor names of the activation quantizers, in network order.
        input_shape: shape of an image, without batch.
        input_step: what the host makes of an image: the integer codes that the graph takes.
        output_layer: name of the QONNX node behind the last accumulators.
        output_tensor: QONNX tensor with those accumulators, "" where there is none.
        output_scale: ``logits = accumulators * output_scale + output_bias``; one or per class.
        output_bias: see ``output_scale``.
        onnx_sha256: of the QONNX file it was built from.
    """

    folder: Path
    steps: Mapping[str, Path]
    seconds: Mapping[str, float]
    estimates: Estimates
    folding: Path
    rtl: Path
    versions: Mapping[str, str]
    device: str
    activations: tuple[str, ...]
    input_shape: tuple[int, ...]
    input_step: InputStep
    output_layer: str
    output_tensor: str
    output_scale: tuple[float, ...]
    output_bias: tuple[float, ...]
    onnx_sha256: str

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a finished build.

        Raises:
            InputError: no finished build is there, or one of its files is gone.

        Example:
            >>> FinnBuild.load(Path("runs/demo/compile/qat")).estimates.lut  # doctest: +SKIP
            1393.0
        """
        folder = Path(folder).absolute()  # the worker runs in a folder of its own
        if not (folder / RECORD).exists():
            raise InputError(f"{folder} holds no finished FINN build. Run `divqat compile` first.")
        record = read_json(folder / RECORD)
        try:
            build = cls(
                folder=folder,
                steps=MappingProxyType(
                    {step: folder / "models" / f"{step}.onnx" for step in record["seconds"]}
                ),
                seconds=MappingProxyType(record["seconds"]),
                estimates=_estimates(read_json(folder / "estimates.json")),
                folding=folder / "folding.json",
                rtl=folder / "rtl",
                versions=MappingProxyType(record["versions"]),
                device=record["device"],
                activations=tuple(record["activations"]),
                input_shape=tuple(record["input_shape"]),
                input_step=InputStep.from_record(record["input_step"]),
                output_layer=record["output_layer"],
                output_tensor=record["output_tensor"],
                output_scale=tuple(record["output_scale"]),
                output_bias=tuple(record["output_bias"]),
                onnx_sha256=record["onnx_sha256"],
            )
            build._check()
        except (KeyError, TypeError, ValueError, AttributeError, InputError) as e:
            raise InputError(
                f"{folder / RECORD} is not of this version ({e}). Run `divqat compile` again."
            ) from e
        for path in (*build.steps.values(), build.folding, build.rtl):
            if not path.exists():
                raise InputError(f"{path} is gone. Run `divqat compile` again.")
        return build

    def _check(self) -> None:
        """Refuse what no build says: the folder may be somebody else's.

        Raises:
            ValueError: a step that is no plain name, a shape or number out of bounds.
        """
        for step in self.steps:
            if not step.isidentifier():
                raise ValueError(f"the step {step[:100]!r} is no name")
        shape = self.input_shape
        if not all(isinstance(n, int) and n > 0 for n in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise ValueError(f"input_shape = {str(shape)[:100]}")
        if not all(math.isfinite(n) for n in (*self.output_scale, *self.output_bias)):
            raise ValueError("a scale or bias is no number")

    def codes(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The integer codes that the graph takes for ``images`` (N, C, H, W), as float32."""
        return self.input_step.codes(images).astype(np.float32)


def hardware_rows(build: FinnBuild, variant: str) -> list[dict[str, Any]]:
    """The ``hardware`` rows of results.json for a build: FINN's estimate.

    ``bram`` counts blocks of 18 Kibit. What an estimate does not tell is None.
    """
    estimates = build.estimates
    return [
        {
            "variant": variant,
            "device": build.device,
            "stage": "estimate",
            "lut": estimates.lut,
            "ff": None,
            "bram": estimates.bram,
            "dsp": estimates.dsp,
            "fmax_mhz": None,
            "cycles_per_image": estimates.cycles_per_image,
            "images_per_s": estimates.images_per_s,
            "bitstream_bytes": None,
            "tool": f"finn-plus {build.versions['finn-plus']}",
            "latency_cycles": estimates.latency_cycles,
        }
    ]


def _estimates(record: dict[str, Any]) -> Estimates:
    layers = tuple(LayerEstimate(**row) for row in record["layers"])
    return Estimates(**{**record, "layers": layers})

"""What one quantizer of a layer does, in numbers, and who can take it.

The rules of the integer engine and of FINN are stated here in Brevitas' terms, so that a user is
told at the layer, before an export. ``fpga_flow`` applies its own to the exported file.
"""

from dataclasses import dataclass
from typing import Any

import torch
from brevitas.core.zero_point import ZeroZeroPoint
from brevitas.export.onnx.qonnx.manager import QONNXManager
from brevitas.proxy import (
    ActQuantProxyFromInjector,
    BiasQuantProxyFromInjector,
    WeightQuantProxyFromInjector,
)
from brevitas.proxy.runtime_quant import DynamicActQuantProxyFromInjector
from torch import Tensor, nn

from divqat_brevitas.copies import deep_copy
from divqat_brevitas.inference import evaluating
from divqat_brevitas.quant.learned_scale import LearnedScaleIntQuant
from divqat_brevitas.quant.proxy import DivQATWeightQuantProxy
from divqat_brevitas.quant.signs import SignActQuant

ROLES = {
    "input": "input_quant",
    "weight": "weight_quant",
    "bias": "bias_quant",
    "activation": "act_quant",
    "output": "output_quant",
}
_NOT_SET = "not set yet: no data seen (train or calibrate)"
_MAX_BITS = 8
_ROUNDINGS = ("ROUND", "FLOOR", "CEIL")


@dataclass(frozen=True)
class Quantization:
    """One quantizer of a layer.

    Attributes:
        role: "weight", "bias", "input", "output" or "activation".
        quantizer: name of the quantizer class.
        ours: whether it is a DivQAT quantizer: signs, or a scale that learns as LSQ's does.
        fused: whether training takes our one-pass kernel.
        bit_width: None where the codes are no integers.
        signed: whether there are negative codes.
        narrow: whether the range is one code smaller.
        codes: smallest and largest code; None where the codes are no integers.
        scales: how many scales; 1 is per tensor.
        scale: smallest and largest of them; None where a scale follows the data at run time.
        zero_point: the code of 0; 0 for symmetric quantizers.
        rounding: "ROUND" (half to even), "FLOOR", ...
        scale_source: in words: learned, constant, from the weights, not set yet.
        integer_problem: why the integer engine cannot take it, with the fix; None: it can.
        finn_problem: the same for FINN.
    """

    role: str
    quantizer: str
    ours: bool
    fused: bool
    bit_width: int | None
    signed: bool
    narrow: bool
    codes: tuple[int, int] | None
    scales: int
    scale: tuple[float, float] | None
    zero_point: float
    rounding: str
    scale_source: str
    integer_problem: str | None
    finn_problem: str | None

    @property
    def range(self) -> tuple[float, float] | None:
        """Smallest and largest real value there is; None where the scale is not known."""
        if self.codes is None or self.scale is None:
            return None
        low, high = (code - self.zero_point for code in self.codes)
        return min(low * s for s in self.scale), max(high * s for s in self.scale)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def describe(layer: nn.Module, role: str) -> Quantization:
    """Describe an enabled quantizer of a Brevitas layer.

    The layer is not changed, except that weights with MSE or HQO statistics, which Brevitas
    cannot copy, take their scale now where they have none.

    Example:
        >>> from brevitas.nn import QuantReLU
        >>> from divqat_brevitas.quant import Uint4ActPerTensorFloatDivQAT
        >>> relu = QuantReLU(act_quant=Uint4ActPerTensorFloatDivQAT)
        >>> print(describe(relu, "activation"))
        activation: 4 bits, unsigned: codes 0…15
          scale: 0.06667, one for the tensor, not set yet: no data seen (train or calibrate)
          range: 0…1
          quantizer: Uint4ActPerTensorFloatDivQAT (DivQAT, one fused pass in training)
          integer engine: yes, 15 thresholds a channel
          FINN: yes
    """
    proxy = getattr(layer, ROLES[role])
    # A copy, since a scale takes its value when it is first asked for.
    if role != "weight" or not _holds_on(proxy):
        proxy = getattr(deep_copy(layer), ROLES[role])
    tensor_quant = _tensor_quant(proxy)
    int_quant = getattr(tensor_quant, "int_quant", None)
    signs = isinstance(tensor_quant, SignActQuant)
    with evaluating(proxy):
        bits, scale, zero_point = _parameters(proxy)
    fields: dict[str, Any] = {
        "role": role,
        "quantizer": str(getattr(proxy.quant_injector, "__name__", type(tensor_quant).__name__)),
        "ours": signs or isinstance(int_quant, LearnedScaleIntQuant),
        "fused": signs or (isinstance(int_quant, LearnedScaleIntQuant) and _fuses(int_quant)),
        "bit_width": bits,
        "signed": bool(proxy.is_signed),
        "narrow": bool(proxy.is_narrow_range),
        "codes": None if bits is None else _codes(bits, proxy.is_signed, proxy.is_narrow_range),
        "scales": 1 if scale is None else scale.numel(),
        "scale": None if scale is None else (float(scale.min()), float(scale.max())),
        "zero_point": 0.0 if zero_point is None else float(zero_point.reshape(-1)[0]),
        "rounding": str(proxy.rounding_mode or "ROUND").upper(),
        "scale_source": _scale_source(tensor_quant),
    }
    problem = _problem(proxy, fields, scale)
    return Quantization(
        **fields,
        integer_problem=problem,
        finn_problem=problem or _finn_problem(proxy, fields, scale),
    )


def _holds_on(proxy: nn.Module) -> bool:
    """Whether its statistics (MSE, HQO) refer to the very layer they were made for."""
    return any(hasattr(module, "proxy_forward") for module in proxy.modules())


def _tensor_quant(proxy: Any) -> Any:
    fused = getattr(proxy, "fused_activation_quant_proxy", None)
    return proxy.tensor_quant if fused is None else fused.tensor_quant


def _parameters(proxy: Any) -> tuple[int | None, Tensor | None, Tensor | None]:
    """Bit width, scale and zero point; None for what depends on data or is no integer's."""
    if hasattr(proxy, "exponent_bit_width"):  # minifloats
        return None, None, None
    tensor_quant = _tensor_quant(proxy)
    follows_input = isinstance(proxy, BiasQuantProxyFromInjector) and proxy.requires_input_scale
    if (
        follows_input
        or isinstance(proxy, DynamicActQuantProxyFromInjector)
        or getattr(proxy, "requires_quant_input", False)
    ):
        return int(tensor_quant.msb_clamp_bit_width_impl()), None, None
    return int(proxy.bit_width()), proxy.scale().detach(), proxy.zero_point().detach()


def _codes(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    if bits == 1 and signed:
        return -1, 1
    if signed:
        return -(2 ** (bits - 1)) + bool(narrow), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1 - bool(narrow)


def _fuses(int_quant: LearnedScaleIntQuant) -> bool:
    """Whether a training step on float32 would take the fused kernel."""
    one = torch.ones(())
    return int_quant.fuses(one, one)


def _scale_source(tensor_quant: Any) -> str:
    scaling = getattr(tensor_quant, "scaling_impl", None)
    if scaling is None:
        return "the accumulator's"
    learned = isinstance(getattr(scaling, "value", None), nn.Parameter)
    seen, wanted = getattr(scaling, "counter", None), getattr(scaling, "collect_stats_steps", None)
    if learned and seen is not None and wanted is not None:
        if seen == 0:
            return _NOT_SET
        if seen < wanted:
            return f"from statistics so far ({seen} of {wanted} batches), then learned"
    if learned:
        return "learned"
    return "constant" if "Const" in type(scaling).__name__ else "computed when used"


def _problem(proxy: Any, fields: dict[str, Any], scale: Tensor | None) -> str | None:
    """Why no integers can be made of it."""
    bits, role = fields["bit_width"], fields["role"]
    if bits is None:
        return "its codes are minifloats: use an integer quantizer (Int..., Uint...)"
    if isinstance(proxy, DynamicActQuantProxyFromInjector):
        return "its scale follows the data at run time: use one with a constant or learned scale"
    if type(proxy) not in {handler.handled_layer for handler in QONNXManager.handlers}:
        return (
            f"QONNX has no export of its proxy {type(proxy).__name__}: set proxy_class = "
            "divqat_brevitas.quant.proxy.DivQATWeightQuantProxy for weights with one scale a "
            "tensor or an output channel, and Brevitas' ActQuantProxyFromInjector for activations"
        )
    shifts = getattr(_tensor_quant(proxy), "zero_point_impl", None)
    unset = fields["scale_source"] == _NOT_SET
    if fields["zero_point"] != 0 or (unset and not isinstance(shifts, ZeroZeroPoint | None)):
        return "its zero-point is not 0: use a symmetric quantizer (not a Shifted... class)"
    if role == "bias":
        return None
    if bits > _MAX_BITS:
        return f"it has {bits} bits: use 1 to {_MAX_BITS} (bit_width={_MAX_BITS})"
    if isinstance(proxy, WeightQuantProxyFromInjector):
        return _weight_problem(proxy, fields, scale)
    if fields["rounding"] not in _ROUNDINGS:
        return f"it rounds by {fields['rounding']}: use float_to_int_impl_type='round'"
    return None


def _weight_problem(proxy: Any, fields: dict[str, Any], scale: Tensor | None) -> str | None:
    if scale is None:
        return None
    weight = proxy.tracked_parameter_list[0].detach()
    channel = 1 if "Transpose" in type(proxy.tracked_module_list[0]).__name__ else 0
    if scale.numel() not in (1, weight.shape[channel]):
        return (
            "it has several scales inside one output channel: quantize per tensor or per output "
            "channel"
        )
    if type(proxy) is DivQATWeightQuantProxy or fields["bit_width"] == 1:
        return None
    low, high = fields["codes"]
    with evaluating(proxy):
        codes = proxy(weight).value / scale
    expected = (weight / scale).round().clamp(low, high)
    if bool((codes.round() != expected).any()):
        return (
            "it does not round to the nearest code, but Brevitas exports it as if it did: set "
            "proxy_class = divqat_brevitas.quant.proxy.DivQATWeightQuantProxy, which exports the "
            "codes"
        )
    return None


def _finn_problem(proxy: Any, fields: dict[str, Any], scale: Tensor | None) -> str | None:
    """Why FINN cannot take what the integer engine can."""
    if not isinstance(proxy, ActQuantProxyFromInjector):
        return None
    if fields["rounding"] != "ROUND":
        return f"it rounds to nearest, not {fields['rounding']}: use float_to_int_impl_type='round'"
    if scale is not None and scale.numel() > 1 and scale.min() != scale.max():
        return "it takes one scale a tensor: use scaling_per_output_channel=False"
    rectified = isinstance(proxy.fused_activation_quant_proxy.activation_impl, nn.ReLU)
    if rectified and fields["bit_width"] == 1:
        return "a ReLU of one bit is the sign of what is never negative: use 2 bits or more"
    if rectified and (fields["signed"] or fields["narrow"]):
        return "it takes unsigned codes of full range behind a ReLU: use a Uint... quantizer"
    return None


def _lines(q: Quantization) -> list[str]:
    kind = "minifloat" if q.bit_width is None else f"{q.bit_width} bit{'s' * (q.bit_width != 1)}"
    words = [kind, "signed" if q.signed else "unsigned", *(["narrow range"] if q.narrow else [])]
    codes = "" if q.codes is None else f": codes {q.codes[0]}…{q.codes[1]}"
    binary = q.bit_width == 1 and q.signed
    lines = [f"{q.role}: {', '.join(words)}{': codes -1 and 1' if binary else codes}"]
    if q.scale is None:
        lines.append(f"  scale: {q.scale_source}")
    else:
        low, high = q.scale
        value = f"{low:.4g}" if low == high else f"{low:.4g}…{high:.4g}"
        of = "one for the tensor" if q.scales == 1 else f"{q.scales} of them"
        lines.append(f"  scale: {value}, {of}, {q.scale_source}")
    if q.zero_point:
        lines.append(f"  zero-point: {q.zero_point:g}")
    if q.range is not None:
        lines.append(f"  range: {q.range[0]:.4g}…{q.range[1]:.4g}")
    whose = "not DivQAT's"
    if q.ours:
        whose = "DivQAT, one fused pass in training" if q.fused else "DivQAT"
    lines.append(f"  quantizer: {q.quantizer} ({whose})")
    lines.append(f"  integer engine: {_verdict(q.integer_problem, _use(q))}")
    lines.append(f"  FINN: {_verdict(q.finn_problem, '')}")
    return lines


def _use(q: Quantization) -> str:
    if q.role == "weight":
        return ", these codes exactly; their scale joins the next thresholds"
    if q.role == "bias" or q.codes is None:
        return ", a constant in the next thresholds"
    steps = 1 if q.bit_width == 1 else q.codes[1] - q.codes[0]
    return f", {steps} threshold{'s' * (steps != 1)} a channel"


def _verdict(problem: str | None, use: str) -> str:
    return f"yes{use}" if problem is None else f"no, {problem}"

"""Calibration of activation scales, and whether the first quantizer holds what reaches it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from brevitas.core.scaling import ConstScaling
from brevitas.graph.calibrate import calibration_mode
from brevitas.proxy import ActQuantProxyFromInjector
from brevitas.proxy.runtime_quant import DynamicActQuantProxyFromInjector
from torch import Tensor, nn

from divqat_brevitas.errors import DivQATWarning
from divqat_brevitas.inference import device_of, evaluating, to_input

MOST_CUT = 0.01
"""Share of values outside the range from which on a user is warned."""
_LEAST_USED = 0.02
# A signed range that is calibrated on positive values ends one step below the largest of them.
_STEP = 1.01


class InputRangeWarning(DivQATWarning):
    """The first quantizer cuts more than 1 % of what it receives."""


@dataclass(frozen=True)
class InputFit:
    """The values that reach a quantizer, and the range that it holds.

    Attributes:
        layer: name of the quantizer's layer in the model.
        cut: share of the values that lie more than one step outside the range.
        far: share of the values that lie outside by more than half of the range.
        seen: smallest and largest value.
        held: smallest and largest value that has a code.
        bits: bit width of the codes.
        fixed: whether the scale is a constant, which no training adapts.
    """

    layer: str
    cut: float
    far: float
    seen: tuple[float, float]
    held: tuple[float, float]
    bits: int
    fixed: bool

    @property
    def too_narrow(self) -> bool:
        """Whether more than 1 % is cut."""
        return self.cut > MOST_CUT

    @property
    def unfit(self) -> bool:
        """Whether the values cannot be meant for this quantizer.

        More than 1 % is cut by a constant scale, or lies far outside of a learned one, which
        may have learned to cut a little.
        """
        return (self.cut if self.fixed else self.far) > MOST_CUT

    @property
    def nearly_unused(self) -> bool:
        """Whether the values span less than 2 % of a range of at least 4 bits."""
        span, room = self.seen[1] - self.seen[0], self.held[1] - self.held[0]
        return self.bits >= 4 and span < _LEAST_USED * room

    def __str__(self) -> str:
        low, high = self.seen
        return (
            f"the first quantizer{f' ({self.layer})' if self.layer else ''} receives values from "
            f"{low:.4g} to {high:.4g}, but holds {self.held[0]:.4g} to {self.held[1]:.4g}"
        )

    @property
    def cut_message(self) -> str:
        """How much is cut, and the remedies."""
        return (
            f"{self}: {self.cut:.1%} of them are cut. If the inputs are normalised, quantize them "
            "with a signed quantizer whose scale is calibrated (swap_quantizers(..., input_act="
            "Int8ActPerTensorFloatDivQAT), then calibrate). If they are pixels of 0 to 255, "
            "divide them by 255."
        )


def first_quantizer_fit(model: nn.Module, inputs: Tensor) -> InputFit | None:
    """Compare what the model's first activation quantizer receives with what it holds.

    The model runs in evaluation mode, up to that quantizer; it is not changed.

    Args:
        model: a Brevitas network with its scales set.
        inputs: (N, ...) as the network takes them.

    Returns:
        None where no integer quantizer with 4 codes or more and a constant range is reached.

    Example:
        >>> from brevitas.nn import QuantIdentity
        >>> from divqat_brevitas.quant import Uint8ImageDivQAT
        >>> net = nn.Sequential(QuantIdentity(act_quant=Uint8ImageDivQAT))
        >>> first_quantizer_fit(net, torch.tensor([[-1.0, 0.5]])).cut
        0.5
    """
    with evaluating(model), _received(model) as received, suppress(_ReachedError):
        model(inputs.to(device_of(model)))
    if not received:
        return None
    name, proxy, values = received[0]
    return fit_of(values, proxy, name)


def fit_of(values: Tensor, proxy: Any, name: str) -> InputFit | None:
    """The fit of values and one activation quantizer; None where it has no range of its own."""
    quantizer = proxy.fused_activation_quant_proxy.tensor_quant
    if not hasattr(quantizer, "int_quant") or isinstance(proxy, DynamicActQuantProxyFromInjector):
        return None
    with torch.no_grad():
        scale, zero_point, bits = proxy.scale(), proxy.zero_point(), proxy.bit_width()
        if scale is None or bits is None:
            return None
        width, signed, narrow = int(bits), bool(proxy.is_signed), bool(proxy.is_narrow_range)
        low = -(2 ** (width - 1)) + narrow if signed else 0
        high = 2 ** (width - 1) - 1 if signed else 2**width - 1 - narrow
        offset = 0 if zero_point is None else zero_point
        fixed = isinstance(getattr(quantizer, "scaling_impl", None), ConstScaling)
        return measure(values, scale, (low - offset, high - offset), width, fixed, name)


def measure(
    values: Tensor, scale: Tensor, codes: tuple[Any, Any], bits: int, fixed: bool, name: str = ""
) -> InputFit | None:
    """The fit of values and a range of codes; None for binary and ternary codes, or no values."""
    low, high = codes
    room = float(torch.as_tensor(high - low).max())
    if room < 3 or not values.numel():  # every value has a sign
        return None
    ratio = values / scale
    beyond = torch.maximum(ratio - high, low - ratio)
    ends = [(end * scale).reshape(-1) for end in codes]
    return InputFit(
        layer=name,
        cut=_share(beyond > _STEP),
        far=_share(beyond > room / 2),
        seen=(float(values.min()), float(values.max())),
        held=(float(ends[0].min()), float(ends[1].max())),
        bits=bits,
        fixed=fixed,
    )


def warn_of_cut(fit: InputFit | None, stacklevel: int = 3) -> None:
    """Issue an ``InputRangeWarning`` where more than 1 % is cut."""
    if fit is not None and fit.too_narrow:
        warnings.warn(fit.cut_message, InputRangeWarning, stacklevel=stacklevel)


class _ReachedError(Exception):
    """Ends the forward pass at the first quantizer."""


@contextmanager
def _received(model: nn.Module) -> Iterator[list[tuple[str, Any, Tensor]]]:
    """Collect (layer, quantizer, its values) of the first activation quantizer, and stop there."""
    received: list[tuple[str, Any, Tensor]] = []

    def watch(name: str, proxy: Any) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            received.append((name, proxy, args[0]))
            raise _ReachedError

        # Behind the activation function: what a ReLU cuts, the quantizer does not.
        return proxy.fused_activation_quant_proxy.tensor_quant.register_forward_pre_hook(hook)

    handles = [
        watch(name.rpartition(".")[0], module)
        for name, module in model.named_modules()
        if isinstance(module, ActQuantProxyFromInjector)
        and module.is_quant_enabled
        and module.fused_activation_quant_proxy is not None
    ]
    try:
        yield received
    finally:
        for handle in handles:
            handle.remove()


def _share(chosen: Tensor) -> float:
    return float(chosen.double().mean())


def calibrate(model: nn.Module, images: Tensor, batch_size: int = 100) -> None:
    """Set every activation scale from the ranges that the float network shows on ``images``.

    Afterwards the scales are ordinary parameters: QAT learns them from its first step.
    Weights and batch-norm statistics do not change. An ``InputRangeWarning`` says where the first
    quantizer cuts more than 1 % of the values that reach it, as one with a constant scale does
    that is given normalised images.

    Args:
        model: a Brevitas network; changed in place, its mode is kept.
        images: a few hundred training inputs: (N, C, H, W) uint8, which the network gets as
            pixel/255, or (N, ...) floats, which it gets as they are.
        batch_size: images a forward pass.
    """
    mode = model.training
    model.eval()
    with torch.no_grad(), calibration_mode(model):
        for batch in torch.split(images, batch_size):
            model(to_input(batch, device_of(model)))
    model.train(mode)
    warn_of_cut(first_quantizer_fit(model, to_input(images)))

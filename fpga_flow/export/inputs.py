"""What the exported model takes: examples, their declared range, and the operators before codes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from brevitas.proxy import ActQuantProxyFromInjector
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from divqat_brevitas.errors import InputError
from divqat_brevitas.inference import evaluating
from divqat_brevitas.input_range import InputRange
from divqat_brevitas.quant.input_fit import InputFit, first_quantizer_fit, warn_of_cut
from fpga_flow.lowering import check_images
from fpga_flow.lowering.preamble import scale_and_shift

FloatArray = npt.NDArray[np.float32]
_MOST = 256  # examples that the range is measured on


def example_inputs(images: FloatArray | Tensor, declared: InputRange) -> FloatArray:
    """The examples as an array.

    Args:
        images: float32 (N, ...), at least one.
        declared: the range that they have to lie in.

    Raises:
        InputError: anything else.
    """
    array = images.detach().cpu().numpy() if isinstance(images, Tensor) else images
    if not isinstance(array, np.ndarray) or array.ndim < 2 or not len(array):
        raise InputError(
            f"example_images must be a float32 array in {declared} with at least one image: "
            "(N, C, H, W), or signals (N, C, L), or features (N, F)."
        )
    return check_images(array, tuple(int(n) for n in array.shape[1:]), declared)


def check_fit(model: nn.Module, images: FloatArray, declared: InputRange) -> None:
    """Compare what the first quantizer receives with what it holds.

    Warns (``InputRangeWarning``) where a learned scale cuts more than 1 % of the examples.

    Args:
        model: the Brevitas network.
        images: the examples.
        declared: the model's input range.

    Raises:
        InputError: a constant scale cuts more than 1 % of what the examples make, a learned one
            is of another order of magnitude, or the whole declared range uses less than 2 % of
            what the quantizer holds.
    """
    examples = torch.tensor(images[:_MOST])
    ends = [torch.full_like(examples[:1], end) for end in (declared.low, declared.high)]
    fit, whole = _fit(model, examples), _fit(model, torch.cat([examples, *ends]))
    if fit is None or whole is None:
        return
    if fit.unfit:
        raise InputError(
            f"the example images do not fit the model: {fit.cut_message} If the model takes "
            "other values than the examples hold, declare them: export_qonnx(..., "
            "input_range=(low, high))."
        )
    if whole.nearly_unused:
        share = (whole.seen[1] - whole.seen[0]) / (whole.held[1] - whole.held[0])
        raise InputError(
            f"the input range does not fit the model: {whole}, of which inputs in {declared} use "
            f"{share:.1%}. The model scales its inputs itself (it divides pixels by 255, for "
            "one): declare the values that it takes with export_qonnx(..., input_range=(0, 255)) "
            "and give such examples, or take the division out of the model."
        )
    warn_of_cut(fit, stacklevel=4)


def explicit_batch_norms(model: nn.Module, image: Tensor) -> None:
    """Replace batch norms before the first quantizer by a multiplication and an addition.

    Libraries round a batch norm differently, and these two operators alike: see
    ``lowering.preamble``. A value moves by float32 noise.

    Args:
        model: in evaluation mode; changed in place.
        image: (1, ...) one input.
    """
    early: list[nn.Module] = []
    try:
        with evaluating(model), _before_quantizers(model, early):
            model(image)
    except Exception:  # the exporter runs the model too, and says what is wrong with it
        return
    names = {id(module): name for name, module in model.named_modules()}
    for norm in early:
        parent, _, child = names[id(norm)].rpartition(".")
        if parent or child:  # the model itself is no batch norm
            setattr(model.get_submodule(parent), child, _MulAdd(norm))


class _MulAdd(nn.Module):
    """A batch norm in evaluation mode, as two operators."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        count = norm.num_features
        gamma = torch.ones(count) if norm.weight is None else norm.weight.detach()
        beta = torch.zeros(count) if norm.bias is None else norm.bias.detach()
        parameters = (gamma, beta, norm.running_mean, norm.running_var)
        gamma, beta, mean, variance = (t.double().cpu().numpy() for t in parameters)
        scale, shift = scale_and_shift(gamma, beta, mean, variance, norm.eps)
        self.register_buffer("scale", torch.from_numpy(scale))
        self.register_buffer("shift", torch.from_numpy(shift))

    def forward(self, x: Tensor) -> Tensor:
        column = (-1, *[1] * (x.dim() - 2))
        return x * self.scale.reshape(column) + self.shift.reshape(column)


@contextmanager
def _before_quantizers(model: nn.Module, early: list[nn.Module]) -> Iterator[None]:
    """Collect the batch norms that run before any activation quantizer does."""
    quantized: list[nn.Module] = []

    def hook(module: nn.Module, _: Any) -> None:
        if isinstance(module, ActQuantProxyFromInjector):
            quantized.append(module)
        elif not quantized and module.running_mean is not None and module not in early:
            early.append(module)

    handles = [
        module.register_forward_pre_hook(hook)
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        or (isinstance(module, ActQuantProxyFromInjector) and module.is_quant_enabled)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _fit(model: nn.Module, inputs: Tensor) -> InputFit | None:
    try:
        return first_quantizer_fit(model, inputs)
    except Exception:  # the exporter runs the model too, and says what is wrong with it
        return None

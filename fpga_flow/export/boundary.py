"""What the exported model takes and returns: examples, their range, early batch norms, logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from brevitas.proxy import ActQuantProxyFromInjector
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from divqat_brevitas.errors import InputError
from divqat_brevitas.inference import as_logits, evaluating, plain
from divqat_brevitas.input_range import InputRange
from divqat_brevitas.quant.input_fit import InputFit, first_quantizer_fit, warn_of_cut
from fpga_flow.export.observe import FloatArray, logits_of
from fpga_flow.lowering import check_images
from fpga_flow.lowering.preamble import scale_and_shift

_MOST = 256  # examples that the range is measured on


def example_inputs(images: FloatArray | Tensor, declared: InputRange) -> FloatArray:
    """The examples as float32 (N, ...), N > 0, in the ``declared`` range; else an InputError."""
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
    """Replace batch norms before the first quantizer by a multiplication and an addition, in place.

    Libraries round a batch norm differently, and these two operators alike: see
    ``lowering.preamble``. A value moves by float32 noise. ``image`` is (1, ...) one input.
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


def logits_alone(model: nn.Module, image: Tensor) -> nn.Module:
    """The model itself, or wrapped where its output holds more than the logits.

    Raises:
        InputError: an output that holds no logits, or logits without an axis for the batch.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> logits_alone(net, torch.zeros(1, 1, 2, 2)) is net
        True
    """
    name = type(model).__name__
    try:
        with torch.no_grad():
            output = model(image)
    except Exception:  # the exporter runs the model too, and says what is wrong with it
        return model
    logits = as_logits(output, 1, name)
    value: object = plain(output)
    if not isinstance(value, Tensor):
        return _Logits(model)
    if value.dim() < 2:
        raise InputError(
            f"{name} returns logits of shape {tuple(logits[0].shape)} for one image: without an "
            "axis for the batch its file would be wrong for more images. Use flatten(1), or "
            "squeeze with the axes named, in place of squeeze()."
        )
    return model


def refuse_batch_dependence(model: nn.Module, images: FloatArray) -> None:
    """Raise an InputError if the model answers an image otherwise alone than among others.

    A file answers one image at a time. Batch norm without running statistics, and averages over
    the batch, move the logits of every image; float noise moves a label at a threshold now and
    then. So most of a few images must have moved by more than a thousandth of the largest logit.
    """
    few = images[:8]
    together = logits_of(model, few)
    alone = np.concatenate([logits_of(model, few[i : i + 1]) for i in range(len(few))])
    moved = np.abs(alone - together).max(axis=1) > 1e-3 * np.abs(together).max()
    if 2 * moved.sum() > len(few):
        norms = [
            f"{name} ({type(m).__name__})"
            for name, m in model.named_modules()
            if isinstance(m, _BatchNorm) and m.running_mean is None
        ]
        cause = f"{', '.join(norms)} keeps no running statistics" if norms else "the forward pass"
        raise InputError(
            f"the answer of {type(model).__name__} to an image depends on the other images of its "
            f"batch (cause: {cause}), but an exported file takes each image for itself. Keep "
            "statistics (track_running_stats=True) and train again, or average over channels and "
            "pixels only."
        )


class _Logits(nn.Module):
    """A network of which only the logits are wanted."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return as_logits(self.network(images), len(images), type(self.network).__name__)

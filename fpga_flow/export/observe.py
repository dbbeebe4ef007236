"""The integers inside a torch model: what its quantizers and weighted layers put out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from brevitas.nn.quant_layer import QuantWeightBiasInputOutputLayer
from brevitas.proxy import (
    ActQuantProxyFromInjector,
    BiasQuantProxyFromInjector,
    TruncQuantProxyFromInjector,
)
from torch import nn

from divqat_brevitas.inference import as_logits, device_of, evaluating, plain
from fpga_flow.lowering import Layer, Network
from fpga_flow.lowering.ir import Conv, IntArray, MatMul, Threshold

FloatArray = npt.NDArray[np.float32]
_CODES = (ActQuantProxyFromInjector, TruncQuantProxyFromInjector)  # what gives activation codes


def logits_of(model: nn.Module, images: FloatArray) -> FloatArray:
    """Logits, float32 (N, classes), in evaluation mode; the model's modes are put back."""
    with evaluating(model):
        output = model(torch.tensor(images, device=device_of(model)))
        value = as_logits(output, len(images), type(model).__name__)
    logits: FloatArray = value.float().cpu().numpy()
    return logits


def observe(
    model: nn.Module, network: Network, images: FloatArray
) -> tuple[FloatArray, dict[Layer, IntArray]]:
    """Execute the model on float32 images (N, ...): logits, and by layer the integers (N, ...).

    Activation quantizers and weighted layers are matched with the network's, each kind in order of
    execution. A kind whose numbers of layers differ (an output quantizer inside a convolution, for
    one) is left out: the layers around it show the same difference.
    """
    with _recording(model) as calls:
        logits = logits_of(model, images)
    # Cleaning sorts branches its own way; torch ran them in the order of the exported file.
    layers: list[Layer] = [network.input, *network.layers]
    layers.sort(key=lambda layer: layer.position)
    integers: dict[Layer, IntArray] = {}
    for weighted in (False, True):
        found = [value for is_weighted, value in calls if is_weighted == weighted]
        wanted = [layer for layer in layers if _is_weighted(layer) == weighted]
        if len(found) == len(wanted):
            integers |= {a: _rounded(a, b) for a, b in zip(wanted, found, strict=True)}
    return logits, {layer: integers[layer] for layer in layers if layer in integers}


def quantizers_by_layer(
    model: nn.Module, network: Network, images: FloatArray
) -> dict[str, ActQuantProxyFromInjector]:
    """The torch quantizer of each threshold layer (and the input's), by the layer's name.

    Empty where the numbers of both differ, so that order tells nothing.
    """
    called: list[ActQuantProxyFromInjector] = []
    handles = [
        m.register_forward_hook(lambda module, _, __: called.append(module))
        for m in model.modules()
        if isinstance(m, _CODES) and m.is_quant_enabled
    ]
    try:
        logits_of(model, images)
    finally:
        for handle in handles:
            handle.remove()
    layers = [layer for layer in (network.input, *network.layers) if _is_weighted(layer) is False]
    layers.sort(key=lambda layer: layer.position)
    if len(layers) != len(called):
        return {}
    return {layer.name: module for layer, module in zip(layers, called, strict=True)}


def _is_weighted(layer: Layer) -> bool | None:
    """True for Conv and MatMul, False for activation quantizers, None for the rest."""
    if isinstance(layer, Conv | MatMul):
        return True
    return False if isinstance(layer, Threshold) or layer.op == "InputQuant" else None


def _rounded(layer: Layer, values: FloatArray) -> IntArray:
    floats = values.astype(np.float64).reshape(len(values), *layer.shape)
    return np.rint(floats / layer.scale).astype(np.int64)


@contextmanager
def _recording(model: nn.Module) -> Iterator[list[tuple[bool, FloatArray]]]:
    """Collect (is a weighted layer, value without bias) of every call, in order."""
    calls: list[tuple[bool, FloatArray]] = []
    biases: dict[int, torch.Tensor] = {}  # quantized ones, by their quantizer, as last used

    def remember_bias(module: Any, _: Any, output: Any) -> None:
        biases[id(module)] = plain(output)

    def hook(module: Any, _: Any, output: Any) -> None:
        value = plain(output)
        weighted = isinstance(module, QuantWeightBiasInputOutputLayer)
        if weighted and module.bias is not None:
            bias = biases.get(id(module.bias_quant), module.bias)
            shape = (1, -1) + (1,) * (value.dim() - 2)
            value = value.double() - bias.double().reshape(shape)
        calls.append((weighted, value.detach().cpu().numpy()))

    handles = [m.register_forward_hook(hook) for m in model.modules() if _is_observed(m)]
    handles += [
        m.register_forward_hook(remember_bias)
        for m in model.modules()
        if isinstance(m, BiasQuantProxyFromInjector) and m.is_quant_enabled
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _is_observed(module: nn.Module) -> bool:
    if isinstance(module, QuantWeightBiasInputOutputLayer):
        return bool(
            module.weight_quant.is_quant_enabled and not module.output_quant.is_quant_enabled
        )
    return isinstance(module, _CODES) and bool(module.is_quant_enabled)

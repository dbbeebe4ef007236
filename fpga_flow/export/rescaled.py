"""Thresholds that lie on integers and have no bias to be moved by: the scale moves a little.

Behind a global pooling, or with batch norm merged and biases quantized (Brevitas'
``graph.quantize``), an activation's thresholds can coincide with integers systematically: a
scale that was calibrated on the very same integers is a rational multiple of theirs. There float
engines decide by noise. A scale 0.16 % larger makes ordinary thresholds of them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fpga_flow.export.observe import FloatArray, quantizers_by_layer
from fpga_flow.lowering import Network

FACTOR = 1 + 1 / 613  # a prime, so that few thresholds come to lie on another integer


def rescale(
    model: nn.Module, network: Network, layers: Sequence[str], images: FloatArray
) -> list[str]:
    """Enlarge the scales of activation quantizers.

    Scales that are constants, or powers of two, stay.

    Args:
        model: the torch model; changed in place.
        network: the file exported from it, in integers.
        layers: names of threshold layers.
        images: float32 (N, C, H, W), to see which quantizer is which.

    Returns:
        names of the layers whose scale was changed.
    """
    quantizers = quantizers_by_layer(model, network, images[:1])
    changed: list[str] = []
    done: dict[int, bool] = {}  # a scale may be shared: it is changed once
    for name in layers:
        if name not in quantizers:
            continue
        proxy = quantizers[name]
        scaling = proxy.fused_activation_quant_proxy.tensor_quant.scaling_impl
        if id(scaling) not in done:
            done[id(scaling)] = _enlarge(proxy, scaling)
        if done[id(scaling)]:
            changed.append(name)
    return changed


def _enlarge(proxy: Any, scaling: nn.Module) -> bool:
    before = proxy.scale().detach().clone()
    # Until its statistics are collected a scale is in a buffer; a constant one is in a module.
    stored = [
        tensor
        for name in ("value", "buffer")
        if isinstance(tensor := getattr(scaling, name, None), torch.Tensor)
    ]
    with torch.no_grad():
        kept = [tensor.clone() for tensor in stored]
        for tensor in stored:
            tensor.mul_(FACTOR)
        if torch.allclose(proxy.scale(), before * FACTOR, rtol=1e-5, atol=0):
            return True
        for tensor, old in zip(stored, kept, strict=True):
            tensor.copy_(old)
    return False

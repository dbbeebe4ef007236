"""Carry what ``lowering.settle`` moved in an ONNX model back into the torch model.

Names do not survive the exporters, so initializers are matched with parameters by value. Where
equal values leave a choice (an untrained network, whose biases are all 0), a copy of the model is
exported whose parameters are numbered instead of trained: the file then tells which is which.

Thresholds that lie on integers and have no bias to be moved by: behind a global pooling, or with
batch norm merged and biases quantized (Brevitas' ``graph.quantize``), they can coincide with
integers systematically, as a scale that was calibrated on the very same integers is a rational
multiple of theirs. There float engines decide by noise. A scale 0.16 % larger (``rescale``) makes
ordinary thresholds of them.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from qonnx.core.modelwrapper import ModelWrapper
from torch import nn

from fpga_flow.export.observe import FloatArray, quantizers_by_layer
from fpga_flow.lowering import Network, Settled


def apply_to_model(
    records: Sequence[Settled],
    before: ModelWrapper,
    model: nn.Module,
    export: Callable[[nn.Module], ModelWrapper],
) -> None:
    """Set the torch parameters behind the moved initializers, in place.

    A constant that is no parameter (written in ``forward``) stays as it is, and so does an
    initializer whose parameter cannot be told: the parity gate judges the result in any case.

    Args:
        records: what ``settle`` did.
        before: the cleaned model before it was settled.
        model: the torch model it was exported from.
        export: gives the cleaned model of a torch model, as ``before`` was made.
    """
    moved = {r.parameter: r.values for r in records if r.parameter and r.values is not None}
    candidates = {
        name: [p for p in model.parameters() if _same(p, _values(before, name))] for name in moved
    }
    if any(len(found) > 1 for found in candidates.values()):
        numbers = _numbers(before, model, export)
        candidates = {
            name: [p for p in found if numbers.get(name) == id(p)]
            for name, found in candidates.items()
        }
    done: set[int] = set()  # one parameter may have several initializers: a layer called twice
    for name, found in candidates.items():
        values = moved[name]
        if len(found) != 1 or values is None or id(found[0]) in done:
            continue
        done.add(id(found[0]))
        with torch.no_grad():
            found[0].copy_(torch.from_numpy(values.reshape(-1).copy()))


def _numbers(
    before: ModelWrapper, model: nn.Module, export: Callable[[nn.Module], ModelWrapper]
) -> dict[str, int]:
    """By initializer the ``id`` of its parameter, from an export of numbered parameters."""
    twin = copy.deepcopy(model)
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    vectors = [(original, clone) for original, clone in pairs if original.dim() == 1]
    with torch.no_grad():
        for number, (_, clone) in enumerate(vectors, start=1):
            clone.fill_(number)
    numbered = export(twin)
    if _structure(numbered) != _structure(before):  # an exporter folded a trained value away
        return {}
    found = {}
    for initializer in before.graph.initializer:
        values = np.unique(_values(numbered, initializer.name))
        if len(values) == 1 and values[0] in range(1, len(vectors) + 1):
            found[str(initializer.name)] = id(vectors[int(values[0]) - 1][0])
    return found


def _structure(model: ModelWrapper) -> list[tuple[str, ...]]:
    return [(str(n.op_type), *map(str, n.input), *map(str, n.output)) for n in model.graph.node]


def _values(model: ModelWrapper, name: str) -> npt.NDArray[np.float32]:
    return np.asarray(model.get_initializer(name)).reshape(-1)


def _same(parameter: nn.Parameter, values: npt.NDArray[np.float32]) -> bool:
    return parameter.dim() == 1 and np.array_equal(parameter.detach().cpu().numpy(), values)


FACTOR = 1 + 1 / 613  # a prime, so that few thresholds come to lie on another integer


def rescale(
    model: nn.Module, network: Network, layers: Sequence[str], images: FloatArray
) -> list[str]:
    """Enlarge the scales of the activation quantizers of threshold ``layers``, in place.

    Scales that are constants, or powers of two, stay. ``images`` show which quantizer is which.
    Returns the names of the layers whose scale was changed.
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

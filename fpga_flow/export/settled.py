"""Carry what ``lowering.settle`` moved in an ONNX model back into the torch model.

Names do not survive the exporters, so initializers are matched with parameters by value. Where
equal values leave a choice (an untrained network, whose biases are all 0), a copy of the model is
exported whose parameters are numbered instead of trained: the file then tells which is which.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from qonnx.core.modelwrapper import ModelWrapper
from torch import nn

from fpga_flow.lowering import Settled


def apply_to_model(
    records: Sequence[Settled],
    before: ModelWrapper,
    model: nn.Module,
    export: Callable[[nn.Module], ModelWrapper],
) -> None:
    """Set the torch parameters behind the moved initializers.

    A constant that is no parameter (written in ``forward``) stays as it is, and so does an
    initializer whose parameter cannot be told: the parity gate judges the result in any case.

    Args:
        records: what ``settle`` did.
        before: the cleaned model before it was settled.
        model: the torch model it was exported from; changed in place.
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

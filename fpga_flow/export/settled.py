"""Carry what ``lowering.settle`` moved in an ONNX model back into the torch model."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from qonnx.core.modelwrapper import ModelWrapper
from torch import nn

from fpga_flow.lowering import Settled


def apply_to_model(records: Sequence[Settled], before: ModelWrapper, model: nn.Module) -> None:
    """Set the torch parameters behind the moved initializers.

    Initializers are matched by value among the parameters that have not been matched, in
    order of execution: names do not survive the exporters. A constant that is no parameter
    (written in ``forward``) stays as it is.

    Args:
        records: what ``settle`` did.
        before: the cleaned model before it was settled.
        model: the torch model it was exported from; changed in place.
    """
    free = [p for p in model.parameters() if p.dim() == 1]
    for record in records:
        if record.parameter is None:
            continue
        old = np.asarray(before.get_initializer(record.parameter)).reshape(-1)
        match = next((p for p in free if _same(p, old)), None)
        if match is None:
            continue
        free = [p for p in free if p is not match]
        if record.values is not None:
            with torch.no_grad():
                match.copy_(torch.from_numpy(record.values.reshape(-1).copy()))


def _same(parameter: nn.Parameter, values: npt.NDArray[np.float32]) -> bool:
    return np.array_equal(parameter.detach().cpu().numpy(), values)

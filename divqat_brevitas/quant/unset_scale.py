"""Learned scales that may be saved and loaded before they have a value.

A scale takes its value from the first data it sees. Brevitas leaves it out of the state dict
until then, but refuses to load such a dict strictly. Here an unset scale loads as unset; a
scale that has a value still insists on its key.
"""

import math
from typing import Any

import torch
from brevitas.core.restrict_val import LogFloatRestrictValue, PowerOfTwoRestrictValue
from brevitas.core.scaling import (
    ParameterFromRuntimeStatsScaling,
    ParameterFromStatsFromParameterScaling,
)
from torch import Tensor


class WeightScale(ParameterFromStatsFromParameterScaling):  # type: ignore[misc]
    """A weight scale, initialised from the weights at the first forward pass.

    A row of zeros has no range, and Brevitas starts its scale at a floor of 1e-10. A logarithm
    takes thousands of steps from there to a useful scale, in which the row learns nothing. Where
    the parameter is a logarithm, such a row starts at the largest scale of the other rows, or
    without any at PyTorch's own range of new weights, 1/sqrt(values in a row). The quantized row
    is 0 at any scale.
    """

    def forward(self, x: Tensor, threshold: Tensor | None = None) -> Tensor:
        """The scale(s); the first call sets them from the weights ``x``."""
        unset = not self.init_done
        scale: Tensor = super().forward(x, threshold)
        restrict = self.stats_scaling_impl.restrict_clamp_scaling.restrict_value_impl
        if not unset or not isinstance(restrict, PowerOfTwoRestrictValue | LogFloatRestrictValue):
            return scale
        with torch.no_grad():
            dead = (self.parameter_list_stats(x) == 0).view_as(self.value)
            if not dead.any():
                return scale
            ordinary = self.value[~dead].max() if not dead.all() else -math.log2(x[0].numel()) / 2
            self.value[dead] = ordinary
        result: Tensor = super().forward(x, threshold)
        return result

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, missing: Any, *lists: Any
    ) -> None:
        key, unset = prefix + "value", not self.init_done
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *lists)
        if unset and key in missing:
            missing.remove(key)


class ActScale(ParameterFromRuntimeStatsScaling):  # type: ignore[misc]
    """An activation scale, initialised from statistics of the first training batches."""

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, missing: Any, *lists: Any
    ) -> None:
        key, unset = prefix + "value", self.counter == 0
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *lists)
        if unset and key in missing:
            missing.remove(key)

"""Learned scales that may be saved and loaded before they have a value.

A scale takes its value from the first data it sees. Brevitas leaves it out of the state dict
until then, but refuses to load such a dict strictly. Here an unset scale loads as unset; a
scale that has a value still insists on its key.
"""

from typing import Any

from brevitas.core.scaling import (
    ParameterFromRuntimeStatsScaling,
    ParameterFromStatsFromParameterScaling,
)


class WeightScale(ParameterFromStatsFromParameterScaling):  # type: ignore[misc]
    """A weight scale, initialised from the weights at the first forward pass."""

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

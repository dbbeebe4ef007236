"""Move thresholds away from integers, so that float engines agree with exact arithmetic.

Float engines (PyTorch, ONNX Runtime, FINN's float32 folding) compute accumulator * scale with a
relative noise of about 1e-7. Where a real threshold lies closer than that to an integer, they may
disagree with exact arithmetic, and with themselves at another batch size. A threshold moves
when the bias before it moves; the smallest move that helps is a fraction of an accumulator step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from qonnx.core.modelwrapper import ModelWrapper

from divqat_brevitas.errors import InputError
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering.affine import Knob
from fpga_flow.lowering.context import Site
from fpga_flow.lowering.ir import FloatArray
from fpga_flow.lowering.lower import trace
from fpga_flow.lowering.model import clean

MARGIN = 1 / 64
_ENOUGH = 1 - 1e-3  # of the largest margin there is, where that is less than asked for
_NUDGE = 1e-6
_NOISE = 2.0**-21  # relative: a few roundings of float32
_PASSES = 4  # one does it, unless float32 is coarse or a parameter reaches two quantizers


@dataclass(frozen=True, eq=False)
class Settled(ShortRepr):
    """What ``settle`` did for one activation quantizer, or for a branch concatenated before it.

    Attributes:
        layer: name of the quantizer's node.
        parameter: name of the initializer that was or could be moved; None where the quantizer
            has no per-channel parameter of its own.
        values: float32, the parameter's new values; None where nothing was moved.
        shift: the largest shift, in accumulator steps, 0 to 1/2.
        margin: the smallest distance that a threshold has from an integer, in accumulator
            steps, measured after rounding to float32.
    """

    layer: str
    parameter: str | None
    values: npt.NDArray[np.float32] | None
    shift: float
    margin: float


def settle(model: ModelWrapper, margin: float = MARGIN) -> list[Settled]:
    """Shift biases in ``model`` so that every threshold keeps ``margin`` from the integers.

    Args:
        model: a cleaned model (``clean``); its initializers are edited in place.
        margin: accumulator steps, 0 < margin < 1/2; where a channel has too many thresholds
            for it, the shift with the largest reachable margin is taken.

    Returns:
        one record an activation quantizer, in order of execution; behind a concatenation one a
        branch with a parameter.

    Raises:
        InputError: margin out of range, or a model that is not cleaned.
        LoweringError: what ``lower`` refuses.

    Example:
        >>> model = clean("model.onnx")
        >>> min(record.margin for record in settle(model)) >= 1 / 64
        True
    """
    if not 0 < margin < 0.5:
        raise InputError(f"margin {margin} is not between 0 and 1/2 accumulator step.")
    _check_cleaned(model)
    first: dict[str, npt.NDArray[np.float32]] = {}
    sites = trace(model)[1]
    for _ in range(_PASSES):
        for name, delta in _moves(model, sites, margin).items():
            old = model.get_initializer(name)
            first.setdefault(name, old)
            model.set_initializer(name, (old + delta.reshape(old.shape)).astype(np.float32))
        # Traced again: margins count as the file's float32 gives them, not as computed.
        sites = trace(model)[1]
        if not _moves(model, sites, margin):
            break
    return [record for site in sites for record in _records(site, model, first)]


def undecided(model: ModelWrapper) -> dict[str, npt.NDArray[np.bool_]]:
    """Quantizers that float32 engines need not decide as exact arithmetic does, and their channels.

    A threshold of such a channel lies closer to an integer than float32 tells numbers of its size
    apart. ``settle`` leaves those that have no bias of their own (behind a global pooling, or a
    quantized bias, thresholds can lie on integers systematically) and those of 8-bit codes, which
    have too many thresholds for one bias.

    Args:
        model: a cleaned model.

    Returns:
        by the quantizer's name bool (C,), whether a channel is undecided; none where all are.

    Raises:
        LoweringError: what ``lower`` refuses.
    """
    channels = {site.layer: undecided_channels(site) for site in trace(model)[1]}
    return {layer: found for layer, found in channels.items() if found.any()}


def undecided_channels(site: Site) -> npt.NDArray[np.bool_]:
    """Whether ``undecided`` means a channel: bool (C,)."""
    real = np.where(site.folded.live, site.folded.real, 0.5)
    noise = np.maximum(np.abs(real), 1.0) * _NOISE
    found: npt.NDArray[np.bool_] = (np.abs(real - np.rint(real)) < noise).any(axis=1)
    return found


def _moves(model: ModelWrapper, sites: Sequence[Site], margin: float) -> dict[str, FloatArray]:
    """By initializer, what to add to its elements so that its thresholds keep the margin."""
    moves = {}
    for knob, group in _groups(sites):
        steps = np.zeros(len(knob.gain))
        # One accumulator step of the value, and the parameter's float32 spacing in such steps.
        unit = group[0].scale[knob.channels] / np.where(knob.gain == 0, 1.0, knob.gain)
        parameter = model.get_initializer(knob.initializer).astype(np.float32).reshape(-1)
        grain = np.abs(np.spacing(parameter) / np.where(unit == 0, 1.0, unit))
        for c in np.flatnonzero(knob.gain):
            reals = np.concatenate([_undecided(site, knob.first + c) for site in group])
            steps[c] = _shift(reals, margin, grain[c])
        if steps.any():
            moves[knob.initializer] = -steps * unit
    return moves


def _groups(sites: Sequence[Site]) -> list[tuple[Knob, list[Site]]]:
    """Sites that one parameter moves by the same number of accumulator steps."""
    groups: dict[str, tuple[Knob, list[Site]]] = {}
    for site in sites:
        for knob in site.knobs:
            first, group = groups.setdefault(knob.initializer, (knob, []))
            at = knob.channels
            if not group or (
                first.channels == at and np.array_equal(group[0].scale[at], site.scale[at])
            ):
                group.append(site)
    return list(groups.values())


def _undecided(site: Site, channel: np.intp) -> FloatArray:
    """Real thresholds of a channel that the range reaches.

    A tie is drawn a little to the side on which it was decided, so that the smallest move away
    from the integer keeps the decision.
    """
    live = site.folded.live[channel]
    integers = site.folded.integers[channel, live]
    real: FloatArray = site.folded.real[channel, live]
    return real.clip(integers - 1 + _NUDGE, integers - _NUDGE)


def _shift(reals: FloatArray, margin: float, grain: float) -> float:
    """The smallest shift u with all ``reals + u`` at least ``margin`` from the integers.

    Where no shift does it: the one with the largest distance. 0 where it is reached already.
    Shifts come in multiples of ``grain``, so that much is aimed at beyond the margin.
    """
    if not reals.size:
        return 0.0
    fractions = np.unique(reals - np.floor(reals))
    gaps = np.diff(fractions, append=fractions[0] + 1)
    best = gaps.max() / 2
    reached = np.abs(reals - np.rint(reals)).min()
    if reached >= min(margin, _ENOUGH * best - grain):
        return 0.0
    target = min(margin + grain, best)
    wide = gaps >= 2 * target - 1e-12
    # Integers may come to lie at these fractions: the ends of each wide gap.
    ends = np.concatenate([fractions[wide] + target, (fractions + gaps)[wide] - target])
    shifts = np.rint(ends) - ends
    return float(shifts[np.abs(shifts).argmin()])


def _records(
    site: Site, model: ModelWrapper, first: dict[str, npt.NDArray[np.float32]]
) -> list[Settled]:
    real = site.folded.real[site.folded.live]
    margin = float(np.abs(real - np.rint(real)).min()) if real.size else 0.5
    records = []
    for knob in site.knobs:
        if knob.initializer not in first:
            records.append(Settled(site.layer, knob.initializer, None, 0.0, margin))
            continue
        values = model.get_initializer(knob.initializer).astype(np.float32)
        delta = (values.astype(np.float64) - first[knob.initializer]).reshape(-1) * knob.gain
        scale = site.scale[knob.channels]
        steps = np.abs(delta) / np.where(scale == 0, 1.0, scale)
        records.append(Settled(site.layer, knob.initializer, values, float(steps.max()), margin))
    return records or [Settled(site.layer, None, None, 0.0, margin)]


def _check_cleaned(model: ModelWrapper) -> None:
    def names(one: ModelWrapper) -> list[tuple[str, ...]]:
        return [(node.name, *node.input, *node.output) for node in one.graph.node]

    if names(model) != names(clean(model)):
        raise InputError(
            "settle edits a model in place, by the names of a cleaned one: "
            "call fpga_flow.lowering.clean(model) first and settle the result."
        )

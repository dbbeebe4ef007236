"""What keeps an integer network from becoming FINN's graph: the one rule of what is legal."""

from collections.abc import Iterator
from dataclasses import dataclass

from fpga_flow.compile.axes import axes, weights_along
from fpga_flow.compile.codes import OneBit, hardly_any, readers, threshold_steps
from fpga_flow.lowering import Layer, Network
from fpga_flow.lowering.ir import (
    Add,
    Concat,
    Conv,
    IntArray,
    MatMul,
    MaxPool,
    Pad,
    Reshape,
    SumPool,
    Threshold,
)

# FINN's models hold integers as float32, which has them all up to here.
_EXACT = 2**24


@dataclass(frozen=True)
class Obstacle:
    """A layer that has no place in FINN's graph.

    Attributes:
        layer: the layer.
        problem: what FINN has no hardware for.
        remedy: what to change in the network.
    """

    layer: Layer
    problem: str
    remedy: str


def entry(network: Network) -> Layer:
    """The layer whose integers enter the accelerator.

    The first quantizer, or the reshape of its codes that a network begins with.
    """
    layer: Layer = network.input
    reading = readers(network)
    while len(after := reading.get(layer.output, [])) == 1 and isinstance(after[0], Reshape):
        layer = after[0]
    return layer


def obstacles(network: Network) -> Iterator[Obstacle]:
    """What keeps a network from becoming FINN's graph, in network order."""
    reading = readers(network)
    first = entry(network)
    if network.output.tensor in (network.input.output, first.output):
        yield Obstacle(network.input, "no layer follows the first quantizer", "Add a QuantLinear")
    if len(first.shape) not in (1, 3):
        yield Obstacle(
            first,
            f"FINN's streams hold (C, H, W) or (features,), not {first.shape}",
            "Flatten it, or give it a height and a width",
        )
    for layer in network.layers:
        found = _obstacle(network, layer)
        if found is not None:
            yield Obstacle(layer, *found)
    used = {network.output.tensor}
    for layer in reversed(network.layers):
        if layer.output in used:
            used.update(layer.inputs)
    for layer in (network.input, *network.layers):
        if any(reader.output not in used for reader in reading.get(layer.output, [])):
            yield Obstacle(layer, "two layers read it, and only one is used", "Remove the other")


def _obstacle(network: Network, layer: Layer) -> tuple[str, str] | None:
    before = network.layer(layer.inputs[0])
    most = max(-int(layer.low.min()), int(layer.high.max()))
    if layer.accumulates and most > _EXACT:
        return (
            f"its sums reach {most}, and FINN's models hold integers up to 2^24 only",
            "Use fewer bits or fewer inputs",
        )
    if isinstance(layer, Conv | MatMul) and not _used_weights(layer, before).any():
        return (
            "all its weights are 0 wherever it looks, and FINN has no sums of no bits",
            "Train the model again: this layer gives the same for every image",
        )
    match layer:
        case Conv():
            return _window_obstacle(layer, before)
        case MatMul():
            return None
        case MaxPool():
            return _pool_obstacle(network, layer, before)
        case Threshold():
            return _threshold_obstacle(network, layer)
        case Reshape():
            return _reshape_obstacle(network, layer, before)
        case SumPool():
            return _sum_obstacle(layer, before)
        case Add() | Concat():
            return _join_obstacle(network, layer)
        case Pad():
            return (
                "FINN pads inside convolutions only, with zeros",
                "Set padding=... of the convolution behind it",
            )
        case _:
            return f"FINN's graph has no {layer.op}", "Use convolutions, linear layers, max pools"


def _used_weights(layer: Conv | MatMul, before: Layer) -> IntArray:
    """Without the rows of a kernel that see nothing but padding."""
    if isinstance(layer, MatMul):
        return layer.weight
    return weights_along(layer.weight, *axes(layer, before.shape))


def _window_obstacle(layer: Conv | MaxPool | SumPool, before: Layer) -> tuple[str, str] | None:
    both = axes(layer, before.shape)
    generated = isinstance(layer, MaxPool) or not all(axis.whole for axis in both)
    single = both[0].out == both[1].out == 1
    if generated and single and before.shape[0] == 1 and both[0].kernel * both[1].kernel == 2:
        return (
            "FINN makes no single window of two pixels of one channel",
            "Use a larger kernel, more windows or more channels",
        )
    for axis, name in zip(both, ("rows", "columns"), strict=True):
        if axis.size == 1 and (axis.before or axis.after or axis.kernel > 1):
            return (
                f"FINN makes no windows of several {name} on a map of one",
                "Remove the padding along that axis, or use larger images",
            )
    return None


def _least(network: Network, layer: Layer) -> int:
    """The least code there is in the type of a layer's codes."""
    while isinstance(layer, MaxPool | Reshape):
        layer = network.layer(layer.inputs[0])
    if isinstance(layer, Concat):
        return min(_least(network, network.layer(name)) for name in layer.inputs)
    return layer.base if isinstance(layer, Threshold) else network.input.quantizer.low


def _pool_obstacle(network: Network, layer: MaxPool, before: Layer) -> tuple[str, str] | None:
    if before.accumulates or (layer.signs < 0).any():
        return (
            "FINN pools integer codes, and its input is float",
            "Put the quantized activation in front of the pool: the maximum is the same",
        )
    if layer.dilations != (1, 1):
        return "FINN ignores the dilation of a pool", "Set dilation=1"
    both = axes(layer, before.shape)
    if any(axis.stride > axis.kernel for axis in both):
        return (
            f"FINN makes no pool windows of {both[0].kernel} x {both[1].kernel} with a larger "
            f"stride, {both[0].stride} x {both[1].stride}",
            "Use a stride no larger than the kernel",
        )
    # FINN goes by the type of the codes, whether or not negative ones occur.
    if _least(network, before) < 0 and any(axis.padded > axis.size for axis in both):
        return (
            "FINN pads a pool with zeros, which could win against signed codes",
            "Set padding=0, or put an unsigned quantizer (QuantReLU) in front of it",
        )
    return _window_obstacle(layer, before)


def _sum_obstacle(layer: SumPool, before: Layer) -> tuple[str, str] | None:
    if before.accumulates:
        return (
            "FINN sums the codes of a quantizer, and its input is float",
            "Put the quantized activation in front of the pool",
        )
    if (layer.factors != 1).any():
        return (
            "its windows divide by different numbers of pixels, and there is hardware for plain "
            "sums",
            "Set count_include_pad=True and ceil_mode=False",
        )
    return _window_obstacle(layer, before)


def _join_obstacle(network: Network, layer: Add | Concat) -> tuple[str, str] | None:
    before = [network.layer(name) for name in layer.inputs]
    if layer.shifts.any():
        return (
            "its branches have different scales",
            "Give all branches one quantizer (a Join in front of the swap, or the same "
            "QuantIdentity or QuantReLU instance on each)",
        )
    if any(_unquantized(network, one) for one in before):
        return (
            "a branch of it ends in sums that no quantizer follows",
            "Put one quantizer at the end of every branch",
        )
    if isinstance(layer, Concat) and any(_flattened(network, one) for one in before):
        return (
            "one of its branches is a flattened map, and FINN flattens channels last",
            "Concatenate the maps, and flatten behind that",
        )
    if len({_is_vector(network, one) for one in before}) > 1:
        return (
            "one of its branches ends in a kernel as large as the map, which FINN flattens",
            "Use a smaller kernel, or AdaptiveAvgPool2d(1) in front of a 1x1 convolution",
        )
    return None


def _unquantized(network: Network, layer: Layer) -> bool:
    while isinstance(layer, Reshape):
        layer = network.layer(layer.inputs[0])
    return layer.accumulates


def _flattened(network: Network, layer: Layer) -> bool:
    while isinstance(layer, Reshape) and layer is not entry(network):
        source = network.layer(layer.inputs[0])
        if not vectors(source, layer):
            return True
        layer = source
    return False


def _is_vector(network: Network, layer: Layer) -> bool:
    """Whether a layer of one pixel is (features,) in FINN's graph, and not a map of 1x1."""
    if layer is entry(network):
        return len(layer.shape) == 1
    before = network.layer(layer.inputs[0])
    if isinstance(layer, Conv | MaxPool):
        both = axes(layer, before.shape)
        if not all(axis.trivial for axis in both):
            return isinstance(layer, Conv) and all(axis.whole for axis in both)
    elif isinstance(layer, SumPool) and layer.kernel != (1, 1):
        return False
    elif isinstance(layer, Reshape) and not vectors(before, layer):
        return True
    return _is_vector(network, before)


def _threshold_obstacle(network: Network, layer: Threshold) -> tuple[str, str] | None:
    before = network.layer(layer.inputs[0])
    while isinstance(before, Reshape) and before is not entry(network):
        source = network.layer(before.inputs[0])
        if not vectors(source, before):
            return (
                "it quantizes a map that was flattened, and FINN flattens channels last",
                "Put the quantizer (and batch norm) in front of the flattening",
            )
        before = source
    if isinstance(before, Add | Concat) and _join_obstacle(network, before):
        return None  # that is named already
    if (layer.signs < 0).any() and not isinstance(before, Conv | MatMul):
        return (
            "a negative factor lies between it and the quantizer before it, where no weights can "
            "take the sign",
            "Use positive factors (batch norm weights), or put a layer with weights between both "
            "quantizers",
        )
    if hardly_any(threshold_steps(OneBit(), layer)[0]):
        return (
            "all its thresholds are -1 or 0, and FINN gives such thresholds a type of one bit, "
            "which has no 0",
            "Use a smaller scale, or train the model again: hardly any sum reaches other codes",
        )
    return None


def _reshape_obstacle(network: Network, layer: Reshape, before: Layer) -> tuple[str, str] | None:
    if layer is entry(network) or vectors(before, layer):
        return None
    if len(layer.shape) == 1 and layer.output != network.output.tensor:
        return None
    return (
        f"FINN's streams are channels last and cannot become {layer.shape} from {before.shape}",
        "Flatten before the last linear layer, and reshape nowhere else",
    )


def vectors(before: Layer, after: Layer) -> bool:
    """Whether both are one value a channel, as (C,) or (C, 1, 1)."""
    return all(n == 1 for n in (*before.shape[1:], *after.shape[1:]))

"""Which kernels execute a network: one a layer, or one for a layer and its neighbours.

That is the thresholds after it, and the flattening before it: channels last in memory, a flattened
map is a copy, and weights in that order need none.
"""

from collections.abc import Collection
from dataclasses import dataclass

from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.integer.int8 import compile_int8, unrolls
from fpga_flow.integer.kernel import Kernel, exact_arithmetic
from fpga_flow.integer.kernels import compile_layer, defined
from fpga_flow.integer.layout import Layout
from fpga_flow.integer.trial import remembered
from fpga_flow.lowering import Layer, Network
from fpga_flow.lowering.inputs import InputQuant
from fpga_flow.lowering.ir import Conv, MatMul, Reshape, Threshold


@dataclass(frozen=True)
class Step(ShortRepr):
    """One kernel call.

    Attributes:
        layer: name of the (first) layer it computes.
        layers: names of all layers it computes.
        inputs: tensors it reads.
        output: tensor it writes.
        kernel: how.
        layout: arranges what the kernel gives as the next ones read it.
        done: tensors that nobody reads after it.
    """

    layer: str
    layers: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    kernel: Kernel
    layout: Layout
    done: tuple[str, ...] = ()


def input_step(entry: InputQuant, kernel: Kernel) -> Step:
    """The step that makes the input's codes of images."""
    return Step(entry.name, (entry.name,), (), entry.output, kernel, Layout.of(entry))


def as_convolution(product: MatMul, source: Layer) -> Conv:
    """The convolution of a map (C, H, W) that a product computes of it when it is flattened."""
    # Scale and bias are not looked at here.
    fields = ("name", "source", "inputs", "output", "scale", "bias", "low", "high", "bits")
    return Conv(
        **{name: getattr(product, name) for name in fields},
        weight_bits=product.weight_bits,
        shape=(*product.shape, 1, 1),
        weight=product.weight.T.reshape(-1, *source.shape),
        strides=(1, 1),
        pads=(0, 0, 0, 0),
        dilations=(1, 1),
        groups=1,
    )


class Planner:
    """Plans and their kernels, each made once.

    Args:
        network: to execute.
        batch: the largest number of images in a call.
        distrusted: names of layers that are computed by their int64 definition.
        verdicts: of trials (see ``trial``); those of new ones are added.
    """

    def __init__(
        self,
        network: Network,
        batch: int,
        distrusted: Collection[str] = frozenset(),
        verdicts: dict[str, bool] | None = None,
    ) -> None:
        self._verdicts = {} if verdicts is None else verdicts
        self._network = network
        self._batch = batch
        self._distrusted = frozenset(distrusted)
        self._kernels: dict[tuple[str, ...], Kernel | None] = {}  # by the layers they compute
        self._plans: dict[frozenset[str], tuple[Step, ...]] = {}
        readers: dict[str, list[Layer]] = {}
        for layer in network.layers:
            for name in layer.inputs:
                readers.setdefault(name, []).append(layer)
        self._readers = readers

    def plan(self, keep: Collection[str]) -> tuple[Step, ...]:
        """Steps that leave the tensors ``keep`` behind; sums among them are not fused away.

        Raises:
            InputError: sums of 2**53 and more.
        """
        key = frozenset(keep)
        if key not in self._plans:
            with exact_arithmetic(), remembered(self._verdicts):
                self._plans[key] = self._make(key)
        return self._plans[key]

    def _make(self, keep: frozenset[str]) -> tuple[Step, ...]:
        calls: list[tuple[str, tuple[str, ...], tuple[str, ...], str, Kernel]] = []
        fused: set[str] = set()
        for layer in self._network.layers:
            if layer.name in fused:
                continue
            product = self._product_after(layer, keep)
            if product is not None:
                threshold = None if product.output in keep else self._threshold_after(product)
                kernel = self._through(layer, product, threshold)
                if kernel is None and threshold is not None:
                    threshold, kernel = None, self._through(layer, product, None)
                if kernel is not None:
                    last_of = threshold or product
                    fused |= {product.name, last_of.name}
                    names = _names(layer, product, threshold)
                    calls.append((product.name, names, layer.inputs, last_of.output, kernel))
                    continue
            threshold = None if layer.output in keep else self._threshold_after(layer)
            kernel = self._fused(layer, threshold)
            if threshold is not None and kernel is not None:
                fused.add(threshold.name)
                names = _names(layer, threshold)
                calls.append((layer.name, names, layer.inputs, threshold.output, kernel))
            else:
                kernel = self._single(layer)
                calls.append((layer.name, (layer.name,), layer.inputs, layer.output, kernel))
        last = {name: i for i, (_, _, inputs, _, _) in enumerate(calls) for name in inputs}
        return tuple(
            Step(
                name,
                names,
                inputs,
                output,
                kernel,
                Layout.of(self._network.layer(output)),
                tuple({n for n in inputs if last[n] == i and n not in keep}),
            )
            for i, (name, names, inputs, output, kernel) in enumerate(calls)
        )

    def _product_after(self, layer: Layer, keep: Collection[str]) -> MatMul | None:
        """The product that is the only reader of a flattened map."""
        readers = self._readers.get(layer.output, [])
        if not isinstance(layer, Reshape) or layer.output in keep or len(readers) != 1:
            return None
        flat = len(layer.shape) == 1 and len(self._network.layer(layer.inputs[0]).shape) == 3
        return readers[0] if flat and isinstance(readers[0], MatMul) else None

    def _through(
        self, flatten: Layer, product: MatMul, threshold: Threshold | None
    ) -> Kernel | None:
        """Product and thresholds on the map itself: a convolution whose kernel covers it."""
        key = _names(flatten, product, threshold)
        if key not in self._kernels:
            source = self._network.layer(flatten.inputs[0])
            conv = as_convolution(product, source)
            kernel = None
            if self._distrusted.isdisjoint(key) and unrolls(conv, source):
                kernel = compile_int8(conv, threshold, source, self._batch)
            if kernel is not None:
                run = kernel.run
                kernel = Kernel(
                    f"{kernel.kind.removeprefix('unrolled ')}, through {flatten.name}",
                    lambda x: run(x).flatten(1),
                )
            self._kernels[key] = kernel
        return self._kernels[key]

    def _threshold_after(self, layer: Layer) -> Threshold | None:
        """The thresholds that are the only reader of a layer's sums."""
        readers = self._readers.get(layer.output, [])
        if len(readers) == 1 and isinstance(readers[0], Threshold):
            return readers[0]
        return None

    def _fused(self, layer: Layer, threshold: Threshold | None) -> Kernel | None:
        if threshold is None or not isinstance(layer, Conv | MatMul):
            return None
        key = _names(layer, threshold)
        if not self._distrusted.isdisjoint(key):
            return None
        if key not in self._kernels:
            self._kernels[key] = compile_int8(
                layer, threshold, self._network.layer(layer.inputs[0]), self._batch
            )
        return self._kernels[key]

    def _single(self, layer: Layer) -> Kernel:
        key = _names(layer)
        kernel = self._kernels.get(key)
        if kernel is None and layer.name in self._distrusted:
            kernel = self._kernels[key] = defined(layer)
        if kernel is None:
            sources = [self._network.layer(name) for name in layer.inputs]
            if isinstance(layer, Conv | MatMul):
                kernel = compile_int8(layer, None, sources[0], self._batch)
            kernel = kernel or compile_layer(layer, sources, self._batch)
            self._kernels[key] = kernel
        return kernel


def _names(*layers: Layer | None) -> tuple[str, ...]:
    return tuple(layer.name for layer in layers if layer is not None)

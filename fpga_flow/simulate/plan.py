"""Which kernels execute a network: one a layer, or one for a layer and the thresholds after it."""

from collections.abc import Collection
from dataclasses import dataclass

from fpga_flow.lowering import Layer, Network
from fpga_flow.lowering.ir import Conv, MatMul, Threshold
from fpga_flow.simulate.int8 import compile_int8
from fpga_flow.simulate.kernels import Kernel, compile_layer


@dataclass(frozen=True)
class Step:
    """One kernel call.

    Attributes:
        layer: name of the (first) layer it computes.
        inputs: tensors it reads.
        output: tensor it writes.
        kernel: how.
        done: tensors that nobody reads after it.
    """

    layer: str
    inputs: tuple[str, ...]
    output: str
    kernel: Kernel
    done: tuple[str, ...]


class Planner:
    """Plans and their kernels, each made once.

    Args:
        network: to execute.
        batch: usual number of images.
    """

    def __init__(self, network: Network, batch: int) -> None:
        self._network = network
        self._batch = batch
        self._kernels: dict[tuple[str, bool], Kernel | None] = {}
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
            self._plans[key] = self._make(key)
        return self._plans[key]

    def _make(self, keep: frozenset[str]) -> tuple[Step, ...]:
        calls: list[tuple[Layer, str, Kernel]] = []
        fused: set[str] = set()
        for layer in self._network.layers:
            if layer.name in fused:
                continue
            threshold = None if layer.output in keep else self._threshold_after(layer)
            kernel = self._fused(layer, threshold)
            if threshold is not None and kernel is not None:
                fused.add(threshold.name)
                calls.append((layer, threshold.output, kernel))
            else:
                calls.append((layer, layer.output, self._single(layer)))
        last = {name: i for i, (layer, _, _) in enumerate(calls) for name in layer.inputs}
        return tuple(
            Step(
                layer.name,
                layer.inputs,
                output,
                kernel,
                tuple({n for n in layer.inputs if last[n] == i and n not in keep}),
            )
            for i, (layer, output, kernel) in enumerate(calls)
        )

    def _threshold_after(self, layer: Layer) -> Threshold | None:
        """The thresholds that alone read a layer's sums."""
        readers = self._readers.get(layer.output, [])
        if len(readers) == 1 and isinstance(readers[0], Threshold):
            return readers[0]
        return None

    def _fused(self, layer: Layer, threshold: Threshold | None) -> Kernel | None:
        if threshold is None or not isinstance(layer, Conv | MatMul):
            return None
        key = layer.name, True
        if key not in self._kernels:
            self._kernels[key] = compile_int8(
                layer, threshold, self._network.layer(layer.inputs[0]), self._batch
            )
        return self._kernels[key]

    def _single(self, layer: Layer) -> Kernel:
        key = layer.name, False
        kernel = self._kernels.get(key)
        if kernel is None:
            sources = [self._network.layer(name) for name in layer.inputs]
            if isinstance(layer, Conv | MatMul):
                kernel = compile_int8(layer, None, sources[0], self._batch)
            kernel = kernel or compile_layer(layer, sources, self._batch)
            self._kernels[key] = kernel
        return kernel

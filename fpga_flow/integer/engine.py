"""The integer engine: the network of ``fpga_flow.lowering`` in batches, exact and fast.

How its kernels stay exact is told in ``kernels`` (floating point), ``int8`` (bytes), ``rescale``
(thresholds) and ``native`` (few images).
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from qonnx.core.modelwrapper import ModelWrapper

from divqat_brevitas.files import sha256_file
from divqat_brevitas.input_range import InputRange
from fpga_flow.integer.gate import Difference, gate, passed_trials
from fpga_flow.integer.kernel import exact_arithmetic
from fpga_flow.integer.kernels import compile_input, defined
from fpga_flow.integer.layout import batch_sizes, parts
from fpga_flow.integer.native import NATIVE, compile_native
from fpga_flow.integer.plan import Planner, Step, input_step
from fpga_flow.integer.stored import lowered
from fpga_flow.lowering import Layer, Network, check_images, lower
from fpga_flow.lowering.ir import IntArray

FloatArray = npt.NDArray[np.float32]
_MAX_BATCH = 1024
_BATCH_BYTES = 64 * 2**20
_COPIES = 4  # float32 tensors of a layer's size alive at once: input, output, temporaries


class IntegerEngine:
    """Executes a classifier in integers.

    ``predict`` needs the same memory for any number of images. PyTorch's thread count and
    settings stay as they are.

    Args:
        model: a QONNX file or model, or a network already lowered.
        batch: the most images executed at once, rounded down to a power of two; None chooses by
            the largest layer.

    A file that is new to this machine passes a gate first (see ``gate``): kernels that differ from
    the network's int64 definition are replaced, with a warning.

    Attributes:
        network: what is executed.
        batch: the most images executed at once.
        verdicts: of the trials that kernels stood, by kernel and layers.
        differences: kernels that the gate replaced; empty as a rule.

    Raises:
        InputError: no file, no ONNX, no QONNX.
        LoweringError: a node that cannot become integers.

    Example:
        >>> engine = IntegerEngine("model.onnx")
        >>> engine.predict(images).shape
        (64, 10)
    """

    name = "integer"

    def __init__(
        self, model: Path | str | ModelWrapper | Network, batch: int | None = None
    ) -> None:
        if isinstance(model, Path | str):
            self.network = lowered(Path(model))
        else:
            self.network = model if isinstance(model, Network) else lower(model)
        self.batch = batch_sizes(batch or _suitable_batch(self.network))[-1]
        self._distrusted: frozenset[str] = frozenset()
        self._planners: dict[int, Planner] = {}
        self._threads = torch.get_num_threads()
        self._entry = input_step(self.network.input, compile_input(self.network.input))
        self.differences: tuple[Difference, ...] = ()
        content = sha256_file(Path(model)) if isinstance(model, Path | str) else None
        passed = None if content is None else passed_trials(content, self.batch)
        self.verdicts = passed or {}
        self._native = compile_native(self.network, self.verdicts)
        if self._native is None or passed is None:
            self._planner.plan([self.network.output.tensor])  # refuses sums that are too large
        if content is not None and passed is None:
            self.differences = gate(self, content)

    @property
    def _planner(self) -> Planner:
        """Kernels that stood trial with as many threads as they will run with."""
        threads = torch.get_num_threads()
        if threads not in self._planners:
            verdicts = self.verdicts if threads == self._threads else {}
            self._planners[threads] = Planner(self.network, self.batch, self._distrusted, verdicts)
        return self._planners[threads]

    @property
    def input_range(self) -> InputRange:
        """The values that an input may have."""
        return self.network.input_range

    @property
    def few(self) -> int:
        """Up to so many images are computed by compiled C++ (see ``native``); 0 without."""
        return 0 if self._native is None else self._native.few

    @property
    def kernels(self) -> dict[str, str]:
        """What computes each layer when ``predict`` runs with more images, by layer name.

        "int8 with Quant_5" does that layer's work too. Layers of one kernel have one entry.
        """
        plan = self._planner.plan([self.network.output.tensor])
        return {step.layer: step.kernel.kind for step in plan}

    def predict(self, images: FloatArray) -> FloatArray:
        """Logits, float32 (N, classes), of float32 images (N, *shape) in the input range.

        Raises:
            InputError: images of another kind.
        """
        output = self.network.output
        if self._native is not None and isinstance(images, np.ndarray):
            few = self._native.logits(images)
            if few is not None:
                return few
        logits = [np.empty((0, self.network.classes), dtype=np.float32)]
        logits += [output.logits(run[output.tensor]) for run in self._run(images, [output.tensor])]
        return np.concatenate(logits)

    def accumulators(self, images: FloatArray) -> dict[str, IntArray]:
        """Integers (N, ...) of every layer that adds, by layer name; all stay in memory."""
        layers = self.network.accumulators
        values = self.integers(images, [layer.output for layer in layers])
        return {layer.name: values[layer.output] for layer in layers}

    def integers(self, images: FloatArray, names: Collection[str]) -> dict[str, IntArray]:
        """Integers (N, ...) of layers, by layer or tensor name: accumulators, codes, input codes.

        Raises:
            InputError: images of another kind, or no layer of that name.
        """
        layers = {name: self.network.layer(name) for name in names}
        integers = {name: [_none(layer)] for name, layer in layers.items()}
        for values in self._run(images, [layer.output for layer in layers.values()]):
            for name, layer in layers.items():
                integers[name].append(values[layer.output])
        return {name: np.concatenate(runs) for name, runs in integers.items()}

    def first_difference(
        self, images: FloatArray, expected: Mapping[str, IntArray]
    ) -> Difference | None:
        """The first kernel that differs from given integers, in any batch size it has; or None.

        Args:
            images: float32 (N, *input_shape); repeated for larger batches.
            expected: ``network.run(images)``.
        """
        if self._native is not None:
            layer = self._native.first_difference(images, expected)
            if layer is not None:
                return Difference(layer, NATIVE, (layer,), self.few)
        right = {name: torch.from_numpy(values) for name, values in expected.items()}
        for size in [size for size in batch_sizes(self.batch) if size > self.few]:
            for start in range(0, len(images), size):
                at = np.arange(start, start + size) % len(images)
                with exact_arithmetic():
                    for step, value in self._steps(images[at], [self.network.output.tensor]):
                        if not torch.equal(value.to(torch.int64), right[step.output][at]):
                            return Difference(step.layer, step.kernel.kind, step.layers, size)
        return None

    def distrust(self, difference: Difference) -> None:
        """Compute layers by their int64 definition from now on; few images by those kernels too.

        Of compiled C++ that differs no layer is used any more: others take its place.
        """
        if difference.kernel == NATIVE:
            self._native = None
            return
        self._distrusted |= frozenset(difference.layers)
        self._planners.clear()
        entry = self.network.input
        if entry.name in self._distrusted:
            self._entry = input_step(entry, defined(entry))

    def _steps(
        self, images: FloatArray, keep: Collection[str]
    ) -> Iterator[tuple[Step, torch.Tensor]]:
        """Each step and what it writes, the input's codes first."""
        entry = self._entry
        values = {entry.output: entry.layout(entry.kernel(images))}
        yield entry, values[entry.output]
        for step in self._planner.plan(keep):
            value = step.layout(step.kernel(*[values[name] for name in step.inputs]))
            values[step.output] = value
            yield step, value
            for name in step.done:
                del values[name]

    def _run(self, images: FloatArray, keep: Collection[str]) -> Iterator[dict[str, IntArray]]:
        check_images(images, self.network.input_shape, self.network.input_range)
        for part in parts(len(images), self.batch):
            if self._native is not None and part.stop - part.start <= self.few:
                yield self._native.integers(images[part], keep)
                continue
            with exact_arithmetic():
                steps = self._steps(images[part], keep)
                values = {step.output: value for step, value in steps if step.output in keep}
            yield {name: tensor.to(torch.int64).numpy() for name, tensor in values.items()}


def _suitable_batch(network: Network) -> int:
    largest = max(int(np.prod(layer.shape)) for layer in (network.input, *network.layers))
    return max(1, min(_MAX_BATCH, _BATCH_BYTES // (4 * _COPIES * largest)))


def _none(layer: Layer) -> IntArray:
    return np.empty((0, *layer.shape), dtype=np.int64)

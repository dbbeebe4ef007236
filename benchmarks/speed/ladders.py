"""Optimisations put back to how things were, one after the other.

A *ladder* is a list of rungs from the oldest to what runs today; each has what the one before has
and one thing more. They are built of public parts: nothing in the package has a switch for them.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from brevitas.core.function_wrapper import RoundSte
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.speed.attacks import plain_epoch
from benchmarks.speed.contestants import batch, networks
from divqat_brevitas.extraction import SurrogateTraining, build_surrogate, train_surrogate
from divqat_brevitas.inference import plain
from divqat_brevitas.quant import fused
from divqat_brevitas.quant.fused import requantizing
from divqat_brevitas.quant.learned_scale import LearnedScaleIntQuant
from divqat_brevitas.quant.rectify import rectifying
from divqat_brevitas.training.kernels import channels_last, fast_kernels
from fpga_flow.integer import int8
from fpga_flow.integer.int8 import compile_int8
from fpga_flow.integer.kernel import Kernel, code_dtype, exact_arithmetic
from fpga_flow.integer.kernels import compile_input, compile_layer, searched, tabulated
from fpga_flow.integer.plan import Planner
from fpga_flow.lowering import Layer, Network
from fpga_flow.lowering.inputs import FloatImages
from fpga_flow.lowering.ir import Conv, MatMul, Threshold

Context = Callable[[nn.Module], AbstractContextManager[object]]


@dataclass(frozen=True)
class Rung:
    """One state of the code.

    Attributes:
        name: what it has that the rung before lacks.
        call: the work, once.
        results: what it computes, from one and the same start; the first of them says most.
        unlike: what is not the same, in every bit, as at the rung before, and why.
        apart: how far the first result may then be from the one before, as a part of its norm.
    """

    name: str
    call: Callable[[], object]
    results: Callable[[], Sequence[Tensor]]
    unlike: str = ""
    apart: float = 0.0


def training(model: str, size: int) -> list[Rung]:
    """A plain step of quantization-aware training: both passes and the update.

    Args:
        model: a name of ``divqat_brevitas.models``.
        size: images a batch.
    """
    images, labels = batch(size)
    found, x = networks(model, images), images.float() / 255
    ours, nhwc = found["ours"], channels_last(x)
    bfloat16 = partial(fast_kernels, precision="bfloat16")

    def rung(
        name: str,
        source: nn.Module,
        x: Tensor = x,
        forward: Context = nullcontext,
        unlike: tuple[str, float] = ("", 0.0),
        whole: bool = False,
    ) -> Rung:
        step = _Step(copy.deepcopy(source), x, labels, forward, whole)
        return Rung(name, step.update, step.results, *unlike)

    return [
        # Its image is quantized by ours.
        rung("Brevitas' quantizers", composed(found["stock"])),
        rung("our quantizers, of Brevitas' modules", composed(ours), unlike=_STATISTICS),
        rung("one function a quantizer", ours, whole=True),
        rung("block by block in the cache", ours),
        rung("the ReLU inside", ours, forward=rectifying),
        rung("what can be quantized again is not kept", ours, forward=_joined),
        rung("channels last", ours, nhwc, fast_kernels, _ORDER),
        rung("bfloat16", ours, nhwc, bfloat16, _BFLOAT16),
    ]


_STATISTICS = "gradients of the weights: Brevitas' also lead through the maximum, its scale", 0.0
# What moves across a rounding moves by a whole code. Another computation would be 1 or more apart.
_ORDER = "last bits: sums in another order", 0.2
_BFLOAT16 = "products are of bfloat16", 0.5


@contextmanager
def _whole() -> Iterator[None]:
    """Quantizers take tensors whole."""
    size = fused.BLOCK
    fused.BLOCK = 2**62
    try:
        yield
    finally:
        fused.BLOCK = size


@contextmanager
def _joined(network: nn.Module) -> Iterator[None]:
    with rectifying(network), requantizing():
        yield


class _SameRound(RoundSte):  # type: ignore[misc]
    """Rounds as its base does; another type, so quantizers don't take it for the known one."""


def composed(network: nn.Module) -> nn.Module:
    """A copy whose learned-scale quantizers run Brevitas' modules in training too."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, LearnedScaleIntQuant):
            module.float_to_int_impl = _SameRound()
    return network


@dataclass
class _Step:
    network: nn.Module
    x: Tensor
    labels: Tensor
    forward: Context
    whole: bool

    def __post_init__(self) -> None:
        # Small: the times shall not hang on where noise leads.
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-4, momentum=0.9)
        self.network.train()

    def update(self) -> None:
        self._passes()
        self.optimizer.step()

    def results(self) -> list[Tensor]:
        """Logits and the gradients of weights."""
        logits = self._passes()
        parameters = self.network.named_parameters()
        found = [p.grad for n, p in parameters if n.endswith(".weight") and p.grad is not None]
        gradients = [g.clone(memory_format=torch.contiguous_format) for g in found]
        return [logits.detach(), *gradients]

    def _passes(self) -> Tensor:
        self.optimizer.zero_grad()
        with _whole() if self.whole else nullcontext():
            with self.forward(self.network):
                logits = plain(self.network(self.x))
            torch.autograd.backward(F.cross_entropy(logits, self.labels))
        return logits


def integers(network: Network, images: FloatImages) -> list[Rung]:
    """The integer engine, from images to the last integers.

    Args:
        network: lowered.
        images: float32 (N, *shape) in [0, 1], executed at once.
    """
    count = len(images)

    def sources(layer: Layer) -> list[Layer]:
        return [network.layer(name) for name in layer.inputs]

    def floating(layer: Layer) -> Kernel:
        return compile_layer(layer, sources(layer), count)

    def by_search(layer: Layer) -> Kernel:
        return searched(layer) if isinstance(layer, Threshold) else floating(layer)

    def by_table(layer: Layer) -> Kernel:
        table = tabulated(layer, sources(layer)[0]) if isinstance(layer, Threshold) else None
        return table or by_search(layer)

    def of_bytes(layer: Layer) -> Kernel:
        kernel = None
        if isinstance(layer, Conv | MatMul):
            kernel = compile_int8(layer, None, sources(layer)[0], count)
        return kernel or floating(layer)

    def rung(name: str, kernel: Callable[[Layer], Kernel]) -> Rung:
        with exact_arithmetic(), _not_unrolled():
            calls = [(one.inputs, one.output, kernel(one)) for one in network.layers]
        return _executor(name, network, images, calls, plainly)

    def planned(name: str, codes: Callable[[FloatImages], Tensor]) -> Rung:
        with exact_arithmetic():
            steps = Planner(network, count).plan([network.output.tensor])
        calls = [(step.inputs, step.output, step.kernel) for step in steps]
        return _executor(name, network, images, calls, codes)

    def plainly(images: FloatImages) -> Tensor:
        return torch.from_numpy(network.input.codes(images)).to(code_dtype(network.input))

    with _not_unrolled():
        as_one = planned("thresholds fused into them", plainly)
    return [
        rung("float32 kernels, thresholds searched", by_search),
        rung("thresholds in a table", by_table),
        rung("thresholds as a multiply-add", floating),
        rung("byte kernels", of_bytes),
        as_one,
        planned("tiny layers as one product, no copy to flatten", plainly),
        planned("images to bytes in place", compile_input(network.input)),
    ]


@contextmanager
def _not_unrolled() -> Iterator[None]:
    """Convolutions are the library's, however small, and maps are flattened by a copy."""
    limit = int8.UNROLLED
    int8.UNROLLED = 0
    try:
        yield
    finally:
        int8.UNROLLED = limit


def _executor(
    name: str,
    network: Network,
    images: FloatImages,
    calls: Sequence[tuple[tuple[str, ...], str, Kernel]],
    codes: Callable[[FloatImages], Tensor],
) -> Rung:
    def run() -> Tensor:
        with exact_arithmetic():
            values = {network.input.output: codes(images)}
            for inputs, output, kernel in calls:
                values[output] = kernel(*(values[name] for name in inputs))
        return values[network.output.tensor]

    return Rung(name, run, lambda: [run().to(torch.int64)])


def clones(surrogate: str, shape: tuple[int, int, int], size: int) -> Mapping[str, list[Rung]]:
    """An epoch of a clone's training, by a plain loop and by ``train_surrogate``.

    Args:
        surrogate: its architecture.
        shape: (C, H, W) of an image.
        size: images.
    """
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (size, *shape), dtype=np.uint8)
    floats = pixels.astype(np.float32) / np.float32(255)
    answers = rng.dirichlet(np.ones(10), size).astype(np.float32)

    def loop(name: str, layout: torch.memory_format, *unlike: Any) -> Rung:
        def run() -> list[Tensor]:
            return _weights(plain_epoch(surrogate, floats, answers, layout))

        return Rung(name, run, run, *unlike)

    def trainer(name: str, images: npt.NDArray[np.generic], precision: str, *unlike: Any) -> Rung:
        def run() -> list[Tensor]:
            model = build_surrogate(surrogate, shape, 10, 0)
            how = SurrogateTraining(precision=precision)
            train_surrogate(model, images, answers, epochs=1, seed=0, settings=how)
            return _weights(model)

        return Rung(name, run, run, *unlike)

    return {
        "plain loop": [
            loop("float32, channels first", torch.contiguous_format),
            loop("channels last", torch.channels_last, *_ORDER),
        ],
        "`train_surrogate`": [
            trainer("images as float32", floats, "float32"),
            trainer("images as bytes", pixels, "float32"),
            trainer("bfloat16", pixels, "bfloat16", *_BFLOAT16),
        ],
    }


def _weights(model: nn.Module) -> list[Tensor]:
    """All of them in one tensor."""
    return [torch.cat([p.detach().flatten() for p in model.parameters()])]

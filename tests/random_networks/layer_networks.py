"""Random integer networks, layer by layer without a file: cheap, so that many kernels are met.

Thresholds are of every kind that a quantizer can have: equal steps, ties to even (two different
distances in turn), any order of the codes' widths, some never or always passed.
"""

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from drawing import map_shape, window
from numpy.typing import NDArray

from fpga_flow.lowering import Layer, Network
from fpga_flow.lowering.inputs import InputQuant
from fpga_flow.lowering.ir import Add, Conv, MatMul, MaxPool, Reshape, Threshold, bits_for
from fpga_flow.lowering.network import OutputAffine
from fpga_flow.lowering.quantizers import Quantizer

SIZES = (1, 1, 2, 3, 4, 6, 8, 16)
Integers = NDArray[np.int64]


@dataclass
class Drawn:
    """A network and what it is."""

    line: str
    network: Network


@dataclass
class _Drawer:
    rng: random.Random
    numbers: np.random.Generator
    layers: list[Layer] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    @property
    def last(self) -> Layer:
        return self.layers[-1]

    def add(
        self, kind: type[Layer], shape: tuple[int, ...], low: Any, high: Any, **values: Any
    ) -> None:
        """A layer behind the last one, unless ``inputs`` names others."""
        name = f"{kind.__name__}_{len(self.layers)}"
        inputs = values.pop("inputs", (self.last.output,) if self.layers else ("image",))
        low, high = (np.broadcast_to(np.asarray(e, np.int64), shape[:1]) for e in (low, high))
        bits = values.pop("bits", bits_for(int(low.min()), int(high.max())))
        one = np.ones(1)
        layer = kind(
            name=name,
            source="",
            inputs=inputs,
            output=f"{name}_out",
            shape=shape,
            scale=one,
            bias=0 * one,
            low=low,
            high=high,
            bits=bits,
            **values,
        )
        self.layers.append(layer)

    def image(self, shape: tuple[int, ...]) -> None:
        bits = self.rng.choice((8, 8, 8, 1, 2, 4, 7))
        signed = self.rng.random() < 0.3
        scale = np.float32(self.rng.choice((1 / 255, 2.0**-bits, 1 / max(1, 2**bits - 1))))
        bipolar = bits == 1 and signed
        narrow = self.rng.random() < 0.2 and bits > 1
        q = Quantizer(scale, bits, signed, narrow, "ROUND", bipolar)
        self.add(InputQuant, shape, q.low, q.high, bits=bits, quantizer=q, preamble=())
        self.parts.append(f"{'x'.join(map(str, shape))} | {'iu'[not signed]}{bits}*{scale:.4g}")

    def weight(self, shape: tuple[int, ...]) -> tuple[Integers, int]:
        bits = self.rng.choice((1, 2, 3, 4, 4, 5, 6, 7, 8, 8))
        low, high = (-1, 1) if bits == 1 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        codes = self.numbers.integers(low, high + 1, shape)
        if bits == 1:
            codes = np.where(codes < 0, -1, 1)
        elif self.rng.random() < 0.25:
            codes = np.where(self.numbers.random(shape) < 0.5, low, high)
        if self.rng.random() < 0.1:
            codes[self.rng.randrange(len(codes))] = 0
        return codes, bits

    def convolution(self, source: Layer | None = None, same: bool = False) -> None:
        source = source or self.last
        channels, height, width = source.shape
        g, out, groups = window(self.rng, height, width), self.rng.choice(SIZES), 1
        while same and g.out(height, width) != (height, width):
            g = window(self.rng, height, width)
        if same:
            out = channels
        elif self.rng.random() < 0.4:
            groups = self.rng.choice([n for n in range(1, channels + 1) if channels % n == 0])
            out = groups * self.rng.choice((1, 1, 2, 3))
        weight, bits = self.weight((out, channels // groups, *g.kernel))
        group = np.arange(out) // (out // groups)
        ends = [e.reshape(groups, -1)[group][:, :, None, None] for e in (source.low, source.high)]
        if any(g.pads):
            ends = [np.minimum(ends[0], 0), np.maximum(ends[1], 0)]
        low, high = _reach(weight, *ends)
        self.add(
            Conv,
            (out, *g.out(height, width)),
            low,
            high,
            inputs=(source.output,),
            weight=weight,
            weight_bits=bits,
            strides=g.strides,
            pads=g.pads,
            dilations=g.dilations,
            groups=groups,
        )
        self.parts.append(f"conv {channels}>{out} {g} g{groups} w{bits}")

    def product(self, out: int) -> None:
        weight, bits = self.weight((out, self.last.shape[0]))
        low, high = _reach(weight, self.last.low[None], self.last.high[None])
        self.parts.append(f"linear {self.last.shape[0]}>{out} w{bits}")
        self.add(MatMul, (out,), low, high, weight=weight.T.copy(), weight_bits=bits)

    def threshold(self) -> None:
        before = self.last
        bits = self.rng.choice((1, 2, 2, 3, 4, 4, 5, 6, 8, 8))
        count = 2**bits - 1 - (bits > 1 and self.rng.random() < 0.2)
        base = self.rng.choice((0, -(2 ** (bits - 1)) if bits > 1 else 0))
        step = 1
        if bits == 1 and self.rng.random() < 0.5:
            base, step = -1, 2
        channels = before.shape[0]
        signs = np.where(self.numbers.random(channels) < 0.3, -1, 1)
        if self.rng.random() < 0.5:
            signs[:] = 1
        ends = np.sort(np.stack([signs * before.low, signs * before.high]), axis=0)
        kind = self.rng.choice(("even", "even", "ties", "ties", "any"))
        thresholds = self._levels(kind, count, base, ends)
        limits = ends[:, :, None]
        thresholds = np.clip(thresholds, limits[0], limits[1] + 1)
        passed = (ends[:, :, None] >= thresholds).sum(axis=2)
        self.add(
            Threshold,
            before.shape,
            base + step * passed[0],
            base + step * passed[1],
            bits=bits,
            thresholds=thresholds,
            signs=signs,
            base=base,
            step=step,
        )
        self.parts.append(f"{kind} {bits} bits from {base}{' bipolar' * (step == 2)}")

    def _levels(self, kind: str, count: int, base: int, ends: Integers) -> Integers:
        """(C, count) ascending; ends (2, C) of what is compared."""
        channels = ends.shape[1]
        width = (ends[1] - ends[0] + 1)[:, None].astype(float)
        upper = np.arange(base + 1, base + count + 1)
        if kind == "any":
            drawn = self.numbers.integers(ends[0][:, None], ends[1][:, None] + 2, (channels, count))
            return np.sort(drawn, axis=1)
        if kind == "ties":  # n / 2**k, half to even: code m from (m - 1/2) * 2**k on, or above it
            spread = np.log2(np.maximum(1.0, width[:, 0].max() / (count + 1)))
            power = max(0, round(spread + self.rng.uniform(-1.5, 1)))
            doubled = (2 * upper - 1) * 2**power
            exact = np.where(doubled % 2 == 0, doubled // 2 + (upper % 2 == 1), (doubled + 1) // 2)
            offset = np.zeros(channels, np.int64)
            if self.rng.random() < 0.5:
                offset = np.rint((ends[0] + ends[1]) / 2).astype(np.int64)
            return exact + offset[:, None]
        gain = width * self.rng.choice((0.3, 0.8, 1.2)) / (count + 1)
        middle = (ends[0] + ends[1])[:, None] / 2
        offset = self.numbers.uniform(-0.2, 0.2, (channels, 1)) * width
        real = middle + offset + gain * (np.arange(1, count + 1) - count / 2)
        return np.ceil(real).astype(np.int64)

    def pool(self) -> None:
        source = self.last
        channels, height, width = source.shape
        g = window(self.rng, height, width, pool=True, dilated=False)
        signs = np.ones(channels, np.int64)
        if source.accumulates:
            signs = self.numbers.choice([-1, 1], channels)
        self.add(
            MaxPool,
            (channels, *g.out(height, width)),
            source.low,
            source.high,
            bits=source.bits,
            signs=signs,
            kernel=g.kernel,
            strides=g.strides,
            pads=g.pads,
            dilations=g.dilations,
        )
        self.parts.append(f"max {g}")

    def residual(self) -> None:
        source = self.last
        self.convolution(same=True)
        self.threshold()
        branch = self.last
        shifts = self.numbers.integers(0, 3, (2, source.shape[0]))
        low, high = (
            (a << shifts[0]) + (b << shifts[1])
            for a, b in ((source.low, branch.low), (source.high, branch.high))
        )
        inputs = (source.output, branch.output)
        self.add(Add, source.shape, low, high, inputs=inputs, shifts=shifts)
        self.parts.append("+ shifted")
        if self.rng.random() < 0.7:
            self.threshold()

    def flatten(self) -> None:
        source, size = self.last, int(np.prod(self.last.shape))
        low, high = (np.repeat(e, size // source.shape[0]) for e in (source.low, source.high))
        self.add(Reshape, (size,), low, high, bits=source.bits)
        self.parts.append("flatten")


def _reach(weight: Integers, low: Integers, high: Integers) -> tuple[Integers, Integers]:
    axes = tuple(range(1, weight.ndim))
    first, second = weight * low, weight * high
    return np.minimum(first, second).sum(axes), np.maximum(first, second).sum(axes)


def draw(seed: int) -> Drawn:
    """The network of a seed: any integer."""
    rng = random.Random(f"layers {seed}")
    drawer = _Drawer(rng, np.random.default_rng(seed))
    shape: tuple[int, ...] = map_shape(rng)
    if rng.random() < 0.1:
        shape = (rng.choice((1, 3, 8, 16)),)
    drawer.image(shape)
    if rng.random() < 0.1:
        drawer.threshold()
    if len(shape) == 3:
        for _ in range(rng.choice((0, 1, 1, 2, 2))):
            _grow(drawer)
        drawer.flatten()
    if rng.random() < 0.4:
        drawer.product(rng.choice((1, 4, 8)))
        drawer.threshold()
    drawer.product(rng.randint(1, 5))
    first, *others = drawer.layers
    classes = drawer.last.shape[0]
    output = OutputAffine(drawer.last.output, np.ones(classes), np.zeros(classes))
    return Drawn(" | ".join(drawer.parts), Network(first, tuple(others), output, shape))


def _grow(drawer: _Drawer) -> None:
    kind = drawer.rng.choice(("conv",) * 6 + ("pool", "residual"))
    if kind == "pool":
        drawer.pool()
    elif kind == "residual":
        drawer.residual()
    else:
        drawer.convolution()
        if drawer.rng.random() < 0.15:
            drawer.pool()
        if drawer.rng.random() < 0.92:
            drawer.threshold()
            if drawer.rng.random() < 0.1:
                drawer.threshold()

"""Random QONNX graphs, written node by node: what no exporter of today makes is among them.

One seed, one network. In a network that is ``dyadic`` every parameter is a small multiple of a
power of two: many of its sums then lie exactly half way between two codes.
"""

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from drawing import Geometry, map_shape, window
from numpy.typing import NDArray
from onnx import ModelProto, helper
from qonnx_graphs import DOMAIN, Graph

SIZES = (1, 1, 2, 3, 4, 6, 8)
_ROUNDINGS = ("ROUND",) * 8 + ("FLOOR", "CEIL", "HALF_EVEN", "round")
_REFUSED_ROUNDINGS = ("UP", "HALF_UP", "DOWN", "HALF_DOWN")


@dataclass
class Drawn:
    """A network; ``scale`` is its image quantizer's."""

    line: str
    model: ModelProto
    shape: tuple[int, ...]
    scale: float


@dataclass
class _Drawer:
    rng: random.Random
    graph: Graph
    shape: tuple[int, ...]
    dyadic: bool
    x: str = "image"
    top: float = 1.0  # roughly the largest absolute value of x
    scale: float = 1.0  # of x, behind a quantizer
    parts: list[str] = field(default_factory=list)

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def near(self, value: float) -> float:
        """A scale of that size: a power of two in a dyadic network."""
        value *= self.rng.uniform(0.4, 1.3)
        if self.dyadic or self.chance(0.15):
            return float(2.0 ** round(np.log2(value)))
        return float(np.float32(value))

    def numbers(self, count: int, size: float) -> NDArray[np.float32]:
        """Parameters of that size, a few of them zero."""
        values = self.graph.rng.normal(size=count) * size
        if self.dyadic:
            grain = 2.0 ** np.floor(np.log2(size) - 3)
            values = np.rint(values / grain) * grain
        if self.chance(0.2):
            values[self.rng.randrange(count)] = 0
        return values.astype(np.float32)

    # Quantizers

    def image(self) -> None:
        if self.chance(0.15):
            self._preamble()
        bits = self.rng.choice((8, 8, 8, 8, 1, 2, 3, 4, 5, 6, 7))
        signed = self.chance(0.4)
        low = 2.0**-bits if not signed else 2.0 ** (1 - bits)
        scale = self.rng.choice((low, 1 / 255, 1 / max(1, 2**bits - 1), self.near(low)))
        self.quantize(bits=bits, signed=signed, scale=float(np.float32(scale)))

    def _preamble(self) -> None:
        g, part = self.graph, "image "
        for op in self.rng.choice((("Mul", "Sub"), ("Sub", "Div"), ("Mul",), ("Add",))):
            values = g.rng.uniform(0.4, 2.0, (self.shape[0], *[1] * (len(self.shape) - 1)))
            constant = g.constant(values if self.chance(0.5) else self.rng.choice((1.0, 2.0, 0.5)))
            self.x = g.node(op, self.x, constant)
            part += f"{op} "
        self.parts.append(part.strip())

    def quantize(
        self, bits: int | None = None, signed: bool | None = None, scale: float | None = None
    ) -> None:
        """The activation quantizer behind whatever x is now."""
        bits = bits or self.rng.choice((1, 2, 2, 3, 4, 4, 5, 6, 7, 8, 8))
        signed = self.chance(0.6) if signed is None else signed
        if bits == 1 and self.chance(0.5):
            self.scale = scale or self.near(1.0)
            self.x = self.graph.bipolar(self.x, self.scale)
            self.top = self.scale
            self.parts.append(f"bipolar*{self.scale:.4g}")
            return
        narrow = self.chance(0.3) and (bits > 1)
        rounding = self.rng.choice(_ROUNDINGS)
        if self.chance(0.002):
            rounding = self.rng.choice(_REFUSED_ROUNDINGS)
        codes = 2 ** (bits - signed) - 1 if bits > 1 else 1
        self.scale = scale or self.near(self.top / max(1, codes))
        value: Any = self.scale
        if self.chance(0.03) and len(self.shape) == 3:  # a scale a channel
            value = self.scale * self.graph.rng.choice([0.5, 1.0, 1.5], (self.shape[0], 1, 1))
        zero = 1.0 if self.chance(0.002) else 0.0
        self.x = self.graph.quant(self.x, value, bits, signed, narrow, rounding, zero)
        self.top = self.scale * max(1, codes)
        said = f"{'iu'[not signed]}{bits}{'n' * narrow}"
        said += f" {rounding}" * (rounding != "ROUND") + " a channel" * (np.ndim(value) > 0)
        self.parts.append(f"{said}*{self.scale:.4g}{' zero point' * (zero != 0)}")

    def weight(self, shape: tuple[int, ...], axis: int) -> tuple[str, str]:
        """A quantized weight tensor, its outputs along ``axis``; x's size is carried on."""
        bits, g = self.rng.randint(1, 8), self.graph
        fan_in = int(np.prod(shape)) // shape[axis]
        one = [1] * len(shape)
        per_channel = self.chance(0.5)
        if per_channel:
            one[axis] = shape[axis]
        scale = np.array([self.near(0.2) for _ in range(int(np.prod(one)))]).reshape(one)
        signed, narrow = not (bits > 1 and self.chance(0.1)), self.chance(0.6)
        limit = 2.0 ** (bits - signed)
        values = g.rng.normal(size=shape) * scale * limit * self.rng.choice((0.3, 0.7, 3.0))
        said = f"w{'iu'[not signed]}{bits}{'n' * narrow}{'c' * per_channel}"
        if self.chance(0.1):
            values[(slice(None),) * axis + (self.rng.randrange(shape[axis]),)] = 0
            said += " dead"
        elif self.chance(0.03):
            values[:] = 0
            said += " all 0"
        if bits > 1 and self.chance(0.2):  # its exact ends
            values = np.where(g.rng.random(shape) < 0.5, -limit, limit) * scale
            said += " ends"
        self.top *= float(scale.max()) * limit * 0.4 * fan_in**0.5
        if bits == 1 and self.chance(0.5):
            return g.bipolar(g.constant(values), scale), f"{said} bipolar"
        rounding = self.rng.choice((*_ROUNDINGS, *_REFUSED_ROUNDINGS))
        return g.quant(g.constant(values), scale, bits, signed, narrow, rounding), said

    # Layers that add

    def bias(self, count: int) -> str:
        values = self.numbers(count, self.top / 4)
        if not self.chance(0.15):
            return self.graph.constant(values)
        scale = self.near(self.top / 64)
        return self.graph.quant(self.graph.constant(values), scale, self.rng.choice((8, 16)))

    def convolution(self) -> None:
        channels, height, width = self.shape
        g = window(self.rng, height, width)
        out, groups = self.rng.choice(SIZES), 1
        if self.chance(0.35):
            groups = self.rng.choice([n for n in range(1, channels + 1) if channels % n == 0])
            out = groups * self.rng.choice((1, 1, 2, 3))
        self.x = self.convolved(self.x, out, g, groups)
        self.shape = (out, *g.out(height, width))

    def convolved(self, x: str, out: int, g: Geometry, groups: int = 1) -> str:
        channels = self.shape[0]
        w, said = self.weight((out, channels // groups, *g.kernel), 0)
        attributes: dict[str, Any] = {}
        if groups > 1 or self.chance(0.5):
            attributes["group"] = groups
        for name in ("strides", "dilations"):
            if getattr(g, name) != (1, 1) or self.chance(0.5):
                attributes[name] = list(getattr(g, name))
        if any(g.pads) or self.chance(0.4):
            attributes["pads"] = list(g.pads)
        elif self.chance(0.2):
            attributes["auto_pad"] = self.rng.choice(("VALID", "NOTSET"))
        if self.chance(0.7):
            attributes["kernel_shape"] = list(g.kernel)
        inputs = [x, w, *([self.bias(out)] if self.chance(0.35) else [])]
        self.parts.append(
            f"conv {channels}>{out} {g} g{groups} {said}{' bias' * (len(inputs) - 2)}"
        )
        return self.graph.node("Conv", *inputs, **attributes)

    def same_padded(self) -> None:
        """A convolution with ``auto_pad`` SAME_UPPER or SAME_LOWER."""
        channels, height, width = self.shape
        kernel, strides = (tuple(self.rng.choice((1, 2, 3)) for _ in "hw") for _ in "ks")
        out, mode = self.rng.choice(SIZES), self.rng.choice(("SAME_UPPER", "SAME_LOWER"))
        w, said = self.weight((out, channels, *kernel), 0)
        self.x = self.graph.node(
            "Conv", self.x, w, kernel_shape=kernel, strides=strides, auto_pad=mode
        )
        self.shape = (out, -(-height // strides[0]), -(-width // strides[1]))
        self.parts.append(f"conv {channels}>{out} {kernel} s{strides} {mode} {said}")

    def linear(self, out: int) -> None:
        inputs, g = self.shape[0], self.graph
        kind = self.rng.choice(("MatMul", "MatMul", "Gemm"))
        flipped = self.chance(0.5)
        w, said = self.weight((out, inputs) if flipped else (inputs, out), 0 if flipped else 1)
        if kind == "MatMul":
            w = g.node("Transpose", w, perm=[1, 0]) if flipped else w
            self.x = g.node("MatMul", self.x, w)
        else:
            attributes: dict[str, Any] = {"transB": int(flipped)}
            if self.chance(0.4):
                attributes["alpha"] = self.rng.choice((1.0, -1.0, 0.5, 2.0, 0.3))
                said += f" alpha {attributes['alpha']}"
            if self.chance(0.4):
                attributes["beta"] = self.rng.choice((1.0, -1.0, 0.25, 0.7))
                said += f" beta {attributes['beta']}"
            biases = [self.bias(out)] if self.chance(0.6) else []
            self.x = g.node("Gemm", self.x, w, *biases, **attributes)
        self.shape = (out,)
        self.parts.append(f"{kind} {inputs}>{out} {said}{' transposed' * flipped}")

    # What lies between a sum and its quantizer

    def column(self, values: NDArray[np.float32]) -> str:
        if self.chance(0.2):
            values = values[:1]
        shape = [1] * (len(self.shape) - 1)
        return self.graph.constant(values.reshape(-1, *shape) if shape else values)

    def affine(self) -> None:
        channels, g = self.shape[0], self.graph
        for _ in range(self.rng.choice((0, 1, 1, 2))):
            op = self.rng.choice(("BatchNormalization", "Mul", "Add", "Sub", "Div", "Sub first"))
            if op == "BatchNormalization" and not self.dyadic:
                spread = self.top**2
                gamma = self.numbers(channels, 0.7)
                parameters = (
                    gamma,
                    self.numbers(channels, 0.3),
                    self.numbers(channels, self.top / 4),
                    g.rng.uniform(0.02, 0.3, channels) * spread,
                )
                self.x = g.node(op, self.x, *(g.constant(p) for p in parameters), epsilon=1e-5)
                self.top = 2.0
            elif op in ("Mul", "Div"):
                values = g.rng.choice([-2.0, -1.0, 0.5, 1.0, 2.0], channels)
                if not self.dyadic:
                    values = values * g.rng.uniform(0.5, 1.5, channels)
                elif op == "Mul" and self.chance(0.2):
                    values[self.rng.randrange(channels)] = 0
                self.x = g.node(op, self.x, self.column(values.astype(np.float32)))
            elif op != "BatchNormalization":
                operands = [self.x, self.column(self.numbers(channels, self.top / 4))]
                operands = operands[::-1] if op == "Sub first" else operands
                self.x = g.node(op.split()[0], *operands)
            self.parts.append(op)
        if self.chance(0.3):
            self.x = g.node("Relu", self.x)
            self.parts.append("Relu")
        elif self.chance(0.1):
            ends = [g.constant(np.float32(e * self.top)) for e in (-0.4, 0.5)]
            self.x = g.node("Clip", self.x, *ends)
            self.parts.append("Clip")

    def finish(self) -> None:
        self.affine()
        if len(self.shape) == 3 and self.chance(0.3):
            self.pool()
        if self.chance(0.1):
            self.x = self.graph.node(self.rng.choice(("Identity", "Dropout")), self.x)
        self.quantize()
        if self.chance(0.12):
            self.requantize()

    def requantize(self) -> None:
        """A quantizer reads a quantizer: twice the scale, half, or any."""
        scale = self.scale * self.rng.choice((0.5, 1.0, 2.0, 4.0, 3.0, self.rng.uniform(0.5, 3)))
        self.quantize(scale=float(np.float32(scale)))

    # The other layers

    def pool(self) -> None:
        _, height, width = self.shape
        g = window(self.rng, height, width, pool=True)
        attributes: dict[str, Any] = {"kernel_shape": list(g.kernel), "strides": list(g.strides)}
        if any(g.pads):
            attributes["pads"] = list(g.pads)
        if g.dilations != (1, 1):
            attributes["dilations"] = list(g.dilations)
        if self.chance(0.06):
            attributes["ceil_mode"] = 1
        self.x = self.graph.node("MaxPool", self.x, **attributes)
        self.shape = (self.shape[0], *g.out(height, width, ceil="ceil_mode" in attributes))
        self.parts.append(f"max {g}{' ceil' * ('ceil_mode' in attributes)}")

    def average(self) -> None:
        channels, height, width = self.shape
        kinds = ("AveragePool", "AveragePool", "GlobalAveragePool", "ReduceMean")
        kind = self.rng.choice((*kinds, self.rng.choice(("ReduceSum", "ReduceMax"))))
        g = window(self.rng, height, width, pool=True, dilated=False)
        count, ceil = height * width, self.chance(0.15)
        if kind == "AveragePool":
            self.x = self.graph.node(
                kind,
                self.x,
                kernel_shape=list(g.kernel),
                strides=list(g.strides),
                pads=list(g.pads),
                count_include_pad=int(not ceil and self.chance(0.5)),
                ceil_mode=int(ceil),
            )
            self.shape = (channels, *g.out(height, width, ceil))
            kind += f" {g}{' ceil' * ceil}"
            count = int(np.prod(g.kernel))
        elif kind.startswith("Reduce"):
            axes = self.graph.constant([2, 3], np.int64)
            self.x = self.graph.node(kind, self.x, axes, keepdims=1)
            self.shape = (channels, 1, 1)
        else:
            self.x = self.graph.node(kind, self.x)
            self.shape = (channels, 1, 1)
        self.parts.append(kind)
        if kind not in ("ReduceSum", "ReduceMax") and self.chance(0.3):
            self.truncate(self.scale / count)
        elif self.chance(0.8):
            self.quantize()

    def truncate(self, scale: float) -> None:
        """A Trunc of sums, of which one is worth ``scale``."""
        bits, shift, signed = self.rng.randint(1, 8), self.rng.randint(0, 5), int(self.chance(0.5))
        self.scale = float(np.float32(scale * 2**shift))
        self.x = self.graph.node(
            "Trunc",
            self.x,
            *(self.graph.constant(n) for n in (scale, 0, 8, self.scale, bits)),
            domain=DOMAIN,
            rounding_mode=self.rng.choice(_ROUNDINGS),
            signed=signed,
            narrow=int(bits > 1 and self.chance(0.3)),
        )
        self.top = self.scale * 2 ** (bits - signed)
        self.parts.append(f"trunc {'iu'[not signed]}{bits} >> {shift}")

    def residual(self) -> None:
        """x + x, x + f(x) or g(x) + f(x), the scales of both equal or a power of two apart."""
        g, before, scale = self.graph, self.x, self.scale
        if self.chance(0.2):
            self.x = g.node("Add", before, before)
            self.parts.append("x + x")
        else:
            channels, height, width = self.shape
            project = self.chance(0.5)
            strides = (self.rng.randint(1, 2), self.rng.randint(1, 2)) if project else (1, 1)
            out = self.rng.choice(SIZES) if project else channels
            one = Geometry((1, 1), strides, (0, 0, 0, 0), (1, 1))
            three = Geometry((3, 3), strides, (1, 1, 1, 1), (1, 1))
            self.x = self.convolved(before, out, three)
            shape, self.shape = (out, *one.out(height, width)), self.shape
            if project:
                top = self.top
                shortcut = self.convolved(before, out, one)
                self.top, scale = top, self.near(top / 16)
                shortcut = g.quant(shortcut, scale, 5)
            else:
                shortcut = before
            self.shape = shape
            factor = self.rng.choice((1.0, 1.0, 0.5, 2.0, 0.25, *[0.3] * self.chance(0.1)))
            self.quantize(bits=self.rng.choice((2, 4, 8)), scale=float(np.float32(scale * factor)))
            self.x = g.node("Add", *self.rng.sample([self.x, shortcut], 2))
            self.parts.append(f"+ {'projected' if project else 'x'}")
        self.top *= 2
        if self.chance(0.8):
            self.affine()
            self.quantize()

    def concat(self) -> None:
        """x and f(x), one behind the other, their scales equal or a power of two apart."""
        before, scale, (channels, height, width) = self.x, self.scale, self.shape
        shape = self.shape
        three = Geometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
        self.x = self.convolved(before, out := self.rng.choice(SIZES), three)
        self.shape = (out, height, width)
        self.affine()
        factor = self.rng.choice((1.0, 1.0, 0.5, 2.0))
        self.quantize(scale=float(np.float32(scale * factor)))
        operands = self.rng.sample([self.x, before], 2)
        self.x = self.graph.node("Concat", *operands, axis=1)
        self.shape = (channels + out, *shape[1:])
        self.parts.append("concat")
        if self.chance(0.5):
            self.quantize()

    def padded(self) -> None:
        """Zeros around x by a node of its own, as an exporter writes ZeroPad2d."""
        pads = [self.rng.choice((0, 0, 1, 2)) for _ in range(4)]
        values = self.graph.constant([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
        self.x = self.graph.node("Pad", self.x, values, *self._zero())
        channels, height, width = self.shape
        self.shape = (channels, height + pads[0] + pads[2], width + pads[1] + pads[3])
        self.parts.append(f"pad {pads}")
        self.convolution()
        self.finish()

    def _zero(self) -> list[str]:
        return [self.graph.constant(np.float32(0))] if self.chance(0.5) else []

    def flatten(self) -> None:
        size, g = int(np.prod(self.shape)), self.graph
        kinds = ["Flatten", "Flatten", "Reshape"]
        if len(self.shape) == 3 and self.shape[1:] == (1, 1):
            kinds += ["Squeeze"] * 2
        kind = self.rng.choice(kinds)
        if kind == "Flatten":
            self.x = g.node("Flatten", self.x, axis=1)
        elif kind == "Reshape":
            self.x = g.node("Reshape", self.x, g.constant([self.rng.choice((1, 0)), -1], np.int64))
        else:
            self.x = g.node("Squeeze", self.x, g.constant([2, 3], np.int64))
        self.shape = (size,)
        self.parts.append(kind)


def draw(seed: int) -> Drawn:
    """The network of a seed: any integer."""
    rng = random.Random(f"qonnx {seed}")
    shape: tuple[int, ...] = map_shape(rng)
    if rng.random() < 0.06:
        shape = (rng.choice((1, 3, 8, 12)),)
    drawer = _Drawer(rng, Graph(shape, seed), shape, dyadic=rng.random() < 0.45)
    drawer.parts.append("x".join(map(str, shape)) + " dyadic" * drawer.dyadic)
    drawer.image()
    scale = drawer.scale
    _grow(drawer)
    proto = _finished(drawer, shape)
    return Drawn(" | ".join(drawer.parts), proto, shape, scale)


def _grow(drawer: _Drawer) -> None:
    rng = drawer.rng
    if rng.random() < 0.12:
        drawer.requantize()
    if len(drawer.shape) == 3:
        if rng.random() < 0.1:
            drawer.pool()
        kinds = ["convolution"] * 9 + ["pool"] * 2 + ["average", "residual", "residual"]
        kinds += ["same_padded", "concat", "padded"]
        for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3))):
            kind = rng.choice(kinds)
            getattr(drawer, kind)()
            if kind in ("convolution", "same_padded"):
                drawer.finish()
        ending = rng.random()
        if ending < 0.1:  # the last layer is a convolution of the whole map, or a global average
            one = Geometry(drawer.shape[1:], (1, 1), (0, 0, 0, 0), (1, 1))
            out = rng.randint(1, 5)
            drawer.x = drawer.convolved(drawer.x, out, one)
            drawer.shape = (out,)
            drawer.x = drawer.graph.node("Flatten", drawer.x, axis=1)
            return
        if ending < 0.15:
            drawer.x = drawer.graph.node("GlobalAveragePool", drawer.x)
            drawer.parts.append("GlobalAveragePool")
            drawer.shape = (drawer.shape[0], 1, 1)
            drawer.flatten()
            return
        drawer.flatten()
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        drawer.linear(rng.choice((1, 3, 4, 8)))
        drawer.finish()
    drawer.linear(rng.randint(1, 6))
    if rng.random() < 0.4:
        size = drawer.numbers(drawer.shape[0], drawer.top / 4)
        drawer.x = drawer.graph.node("Add", drawer.x, drawer.graph.constant(size))


def _finished(drawer: _Drawer, shape: tuple[int, ...]) -> ModelProto:
    """The file: its batch axis, operator sets, and where it lists its parameters."""
    rng, graph = drawer.rng, drawer.graph
    proto = graph.model(drawer.x, (1, *drawer.shape)).model
    del proto.graph.value_info[:]
    image = proto.graph.input[0]
    if rng.random() < 0.4:
        batch = rng.choice(("N", 4))
        for value in (image, proto.graph.output[0]):
            dim = value.type.tensor_type.shape.dim[0]
            dim.ClearField("dim_value")
            setattr(dim, "dim_param" if batch == "N" else "dim_value", batch)
        drawer.parts.append(f"batch {batch}")
    if rng.random() < 0.08:
        listed = [
            helper.make_tensor_value_info(t.name, t.data_type, t.dims)
            for t in proto.graph.initializer
        ]
        first = rng.random() < 0.5
        inputs = [*listed, image] if first else [image, *listed]
        copies = [type(image).FromString(i.SerializeToString()) for i in inputs]
        del proto.graph.input[:]
        proto.graph.input.extend(copies)
        drawer.parts.append(f"parameters listed {'before' if first else 'behind'} the image")
    if rng.random() < 0.1:
        _as_constant_nodes(proto)
        drawer.parts.append("Constant nodes")
    return proto


def _as_constant_nodes(proto: ModelProto) -> None:
    """Every other parameter as a Constant node, as old exporters write them."""
    moved = list(proto.graph.initializer)[::2]
    nodes = [
        helper.make_node("Constant", [], [t.name], name=f"of_{t.name}", value=t) for t in moved
    ]
    names = {t.name for t in moved}
    others = [t for t in proto.graph.initializer if t.name not in names]
    inputs = [i for i in proto.graph.input if i.name not in names]
    for repeated, values in (
        (proto.graph.initializer, others),
        (proto.graph.input, inputs),
        (proto.graph.node, [*nodes, *proto.graph.node]),
    ):
        copies = [type(v).FromString(v.SerializeToString()) for v in values]
        del repeated[:]
        repeated.extend(copies)

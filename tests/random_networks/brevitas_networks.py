"""Random Brevitas networks: one seed, one network.

The first part of the line that ``draw`` gives says what the image is, each other part a layer:
``w`` and ``a`` name the quantizers by their class, ``rows 0`` a convolution with dead filters.
"""

import random
from dataclasses import dataclass, field
from typing import Any

import brevitas.nn as qnn
import brevitas.quant as stock
import torch
from drawing import Geometry, map_shape, window
from torch import nn

from divqat_brevitas import quant

SIZES = (1, 2, 3, 4, 6, 8)
_OURS = [getattr(quant, name) for name in quant.__all__ if name.endswith("DivQAT")]
WEIGHTS = [q for q in _OURS if "Weight" in q.__name__] + [
    stock.Int8WeightPerTensorFloat,
    stock.Int8WeightPerChannelFloat,
    stock.Int8WeightPerTensorFixedPoint,
    stock.Int8WeightPerChannelFixedPointMSE,
    stock.Int4WeightPerTensorFloatDecoupled,
    stock.Int8WeightPerChannelFloatMSE,
    stock.SignedBinaryWeightPerTensorConst,
    stock.SignedTernaryWeightPerTensorConst,
]
ACTIVATIONS = [q for q in _OURS if "Act" in q.__name__] + [
    stock.Uint8ActPerTensorFloat,
    stock.Int8ActPerTensorFloat,
    stock.Uint8ActPerTensorFixedPoint,
    stock.Int8ActPerTensorFixedPoint,
    stock.Uint8ActPerTensorFloatMSE,
    stock.Int8ActPerTensorFloatBatchQuant2d,
    stock.SignedBinaryActPerTensorConst,
    stock.SignedTernaryActPerTensorConst,
]
_FIXED = ("Binary", "Ternary", "Decoupled")  # their bit width is part of what they are


@dataclass
class Drawn:
    """A network with its range set, in evaluation mode."""

    line: str
    model: nn.Module
    shape: tuple[int, ...]


class Residual(nn.Module):
    """Two branches through one quantizer, and their sum."""

    def __init__(self, main: nn.Module, shortcut: nn.Module, shared: nn.Module) -> None:
        super().__init__()
        self.main, self.shortcut, self.shared = main, shortcut, shared

    def forward(self, x: Any) -> Any:
        return self.shared(self.main(x)) + self.shared(self.shortcut(x))


class Concatenated(nn.Module):
    """Branches through one quantizer, one behind the other along the channels."""

    def __init__(self, branches: list[nn.Module], shared: list[nn.Module]) -> None:
        super().__init__()
        self.branches, self.shared = nn.ModuleList(branches), nn.ModuleList(shared)

    def forward(self, x: Any) -> Any:
        both = zip(self.branches, self.shared, strict=True)
        codes = [quantizer(branch(x)) for branch, quantizer in both]
        return torch.cat([getattr(one, "value", one) for one in codes], 1)


@dataclass
class _Drawer:
    rng: random.Random
    hardware: bool
    shape: tuple[int, ...]
    parts: list[str] = field(default_factory=list)
    layers: list[nn.Module] = field(default_factory=list)
    carries: bool = False  # QuantTensors between the layers
    mostly: str = ""

    def one_bit(self) -> bool:
        """Whether the next quantizer has one bit, in networks that are mostly of one bit."""
        return self.mostly == "one-bit" and self.rng.random() < 0.7

    def add(self, module: nn.Module, part: str) -> None:
        self.layers.append(module)
        self.parts.append(part)

    def weight(self) -> tuple[dict[str, Any], str]:
        binary = stock.SignedBinaryWeightPerTensorConst
        kind = binary if self.one_bit() else self.rng.choice(WEIGHTS)
        settings: dict[str, Any] = {"weight_quant": kind}
        if not any(word in kind.__name__ for word in _FIXED):
            settings["weight_bit_width"] = self.rng.randint(2, 8)
            if self.rng.random() < 0.2:
                settings["weight_narrow_range"] = self.rng.random() < 0.5
        return settings, _said("w", settings)

    def activation(self, signed: bool | None = None, first: bool = False) -> tuple[Any, str]:
        kinds = [q for q in ACTIVATIONS if not (first and "BatchQuant" in q.__name__)]
        if len(self.shape) == 1:
            kinds = [q for q in kinds if "BatchQuant2d" not in q.__name__]
        if self.hardware:
            kinds = [q for q in kinds if "Binary" not in q.__name__]
        if signed is not None:
            kinds = [q for q in kinds if signed != q.__name__.startswith("Uint")]
        binary = stock.SignedBinaryActPerTensorConst
        kind = binary if not first and self.one_bit() else self.rng.choice(kinds)
        settings: dict[str, Any] = {"act_quant": kind, "return_quant_tensor": self.carries}
        if not any(word in kind.__name__ for word in _FIXED):
            settings["bit_width"] = self.rng.randint(2, 8)
            if not kind.__name__.startswith("Uint") and self.rng.random() < 0.3:
                settings["narrow_range"] = self.rng.random() < 0.7
        relu = kind.__name__.startswith("Uint") and not first
        return (qnn.QuantReLU if relu else qnn.QuantIdentity)(**settings), _said("a", settings)

    def image(self) -> None:
        if self.rng.random() < 0.6:
            settings = {"act_quant": quant.Uint8ImageDivQAT, "return_quant_tensor": self.carries}
            if self.rng.random() < 0.2:
                settings["bit_width"] = self.rng.randint(2, 8)
            self.add(qnn.QuantIdentity(**settings), _said("a", settings))
        else:
            self.add(*self.activation(first=True))

    def convolution(self) -> None:
        channels, height, width = self.shape
        g = window(self.rng, height, width, even=True)
        out, groups = self.rng.choice(SIZES), 1
        if self.rng.random() < (0.1 if self.hardware else 0.35):
            groups = self.rng.choice([n for n in range(1, channels + 1) if channels % n == 0])
            out = groups * self.rng.choice((1, 1, 2))
        self.shape = (out, *g.out(height, width))
        self.add(*self._convolution(channels, out, g, groups))

    def _convolution(
        self, channels: int, out: int, g: Geometry, groups: int = 1
    ) -> tuple[nn.Module, str]:
        bias = self.rng.random() < 0.4
        settings, said = self.weight()
        module = qnn.QuantConv2d(
            channels,
            out,
            g.kernel,
            stride=g.strides,
            padding=g.pads[:2],
            dilation=g.dilations,
            groups=groups,
            bias=bias,
            **settings,
        )
        dead = self._spoil(module)
        part = f"conv {channels}>{out} {g} g{groups} {said}{' bias' * bias}{dead}"
        return module, part

    def _spoil(self, module: Any) -> str:
        """Weights of other sizes, and now and then zero in some rows, or in all."""
        with torch.no_grad():
            module.weight.mul_(2.0 ** self.rng.randint(-2, 2))
            if self.rng.random() >= 0.12:
                return ""
            if self.rng.random() < 0.2:
                module.weight.zero_()
                return " weights 0"
            row = self.rng.randrange(len(module.weight))
            module.weight[row] = 0
            return f" row {row} = 0"

    def norm(self) -> nn.Module:
        channels = self.shape[0]
        norm = (nn.BatchNorm2d if len(self.shape) == 3 else nn.BatchNorm1d)(channels)
        with torch.no_grad():
            norm.weight.normal_(0.3, 1.0)  # a third of them negative
            norm.bias.normal_(0.0, 0.3)
            if self.rng.random() < 0.2:
                norm.weight[self.rng.randrange(channels)] = 0
        return norm

    def finish(self, quantized: bool = True) -> None:
        """Batch norm and quantizer, or only one of both."""
        if self.rng.random() < 0.7:
            self.add(self.norm(), "bn")
        if len(self.shape) == 3 and self.rng.random() < 0.1:
            self.pool()
        self.add(*self.activation())
        if self.rng.random() < 0.1:
            self.add(*self.activation())  # read by another quantizer

    def pool(self) -> None:
        _, height, width = self.shape
        g = window(self.rng, height, width, pool=True, dilated=not self.hardware, even=True)
        self.shape = (self.shape[0], *g.out(height, width))
        self.add(nn.MaxPool2d(g.kernel, g.strides, g.pads[:2], g.dilations), f"max {g}")

    def average(self) -> None:
        _, height, width = self.shape
        if self.rng.random() < 0.5:
            self.shape = (self.shape[0], 1, 1)
            self.add(nn.AdaptiveAvgPool2d(1), "global average")
        else:
            g = window(self.rng, height, width, pool=True, dilated=False, even=True)
            self.shape = (self.shape[0], *g.out(height, width))
            self.add(nn.AvgPool2d(g.kernel, g.strides, g.pads[:2]), f"average {g}")
        self.add(*self.activation())

    def separable(self) -> None:
        """A filter a channel, then mostly a 1x1 convolution of a few groups."""
        if self.shape[0] == 1:
            self.convolution()
            self.finish()
        channels, height, width = self.shape
        g = window(self.rng, height, width, even=True)
        self.shape = (channels, *g.out(height, width))
        self.add(*self._convolution(channels, channels, g, channels))
        self.finish()
        if self.rng.random() < 0.8:
            groups = self.rng.choice([n for n in (1, 1, 2, 3) if channels % n == 0])
            one = Geometry((1, 1), (1, 1), (0, 0, 0, 0), (1, 1))
            out = groups * self.rng.randint(1, 4)
            self.shape = (out, *self.shape[1:])
            self.add(*self._convolution(channels, out, one, groups))
            self.finish()

    def residual(self) -> None:
        channels, height, width = self.shape
        project = self.rng.random() < 0.5
        out = self.rng.choice(SIZES) if project else channels
        strides = (self.rng.randint(1, 2), self.rng.randint(1, 2)) if project else (1, 1)
        one = Geometry((1, 1), strides, (0, 0, 0, 0), (1, 1))
        three = Geometry((3, 3), strides, (1, 1, 1, 1), (1, 1))
        branch, said = self._convolution(channels, out, three)
        self.shape = (out, *one.out(height, width))
        main: list[nn.Module] = [branch, self.norm()] if self.rng.random() < 0.7 else [branch]
        shortcut, other = nn.Identity(), ""
        if project:
            shortcut, other = self._convolution(channels, out, one)
        shared, quantizer = self.activation(signed=True)
        block = Residual(nn.Sequential(*main), shortcut, shared)
        self.add(block, f"({said}) + ({other or 'x'}) both {quantizer}")
        if self.rng.random() < 0.8:
            self.add(*self.activation())

    def concatenation(self) -> None:
        """Convolutions of 1x1 and 3x3 pixels, pools, and the input itself, in any order."""
        channels, _, _ = self.shape
        shared, quantizer = self.activation()
        branches, quantizers, said, total = [], [], [], 0
        kinds = [self.rng.choice((1, 3)), *self.rng.choices((1, 3, "max", "x"), k=2)]
        kinds = self.rng.sample(kinds, self.rng.choice((2, 2, 3)))
        for kind in kinds:
            out = channels
            if isinstance(kind, int):
                out = self.rng.choice(SIZES)
                g = Geometry((kind, kind), (1, 1), (kind // 2,) * 4, (1, 1))
                branch, part = self._convolution(channels, out, g)
            else:
                branch = nn.MaxPool2d(3, 1, 1) if kind == "max" else nn.Identity()
                part = kind
            branches.append(branch)
            quantizers.append(shared)
            said.append(part)
            total += out
        others = ""
        if self.rng.random() < 0.2:  # a scale of its own, and perhaps another sign
            quantizers[-1], others = self.activation()
        self.shape = (total, *self.shape[1:])
        block = Concatenated(branches, quantizers)
        self.add(block, f"cat({'; '.join(said)}) each {quantizer}{others and ', last ' + others}")
        if others or self.carries or self.rng.random() < 0.3:
            self.add(*self.activation())

    def linear(self, out: int) -> None:
        settings, said = self.weight()
        bias = self.rng.random() < 0.6
        module = qnn.QuantLinear(self.shape[0], out, bias=bias, **settings)
        dead = self._spoil(module)
        part = f"linear {self.shape[0]}>{out} {said}{' bias' * bias}{dead}"
        self.shape = (out,)
        self.add(module, part)

    def flatten(self) -> None:
        size = 1
        for n in self.shape:
            size *= n
        self.shape = (size,)
        self.add(nn.Flatten(), "flatten")


def draw(seed: int, hardware: bool = False, mostly: str = "") -> Drawn:
    """The network of a seed.

    Args:
        seed: any integer.
        hardware: only kinds of layers that FINN could map; ``legality`` has the last word.
        mostly: "branches": residual sums, concatenations and averages; "depthwise": separable
            convolutions and averages; "one-bit": one-bit weights and activations; "":
            convolutions.
    """
    rng = random.Random(f"brevitas {seed} {hardware}" + f" {mostly}" * bool(mostly))
    shape = map_shape(rng)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawer = _Drawer(rng, hardware, shape, carries=rng.random() < 0.4, mostly=mostly)
        drawer.parts.append("x".join(map(str, shape)))
        _grow(drawer, mostly)
        model = nn.Sequential(*drawer.layers).train()
        batch = torch.randint(0, 256, (16, *shape)) / 255
        for _ in range(2):
            model(batch)
    return Drawn(" | ".join(drawer.parts), model.eval(), shape)


_KINDS = {
    "": ["convolution"] * 6 + ["pool"] * 2 + ["average", "residual", "residual"],
    "branches": ["convolution", "pool", "average"] + ["residual", "concatenation"] * 3,
    "depthwise": ["convolution", "average"] + ["separable"] * 3,
    "one-bit": ["convolution"] * 4 + ["pool"],
}


def _grow(drawer: _Drawer, mostly: str) -> None:
    rng = drawer.rng
    drawer.image()
    if rng.random() < 0.15:
        drawer.add(*drawer.activation(signed=None, first=True))
    if rng.random() < 0.15:
        drawer.pool()
    if mostly or rng.random() < 0.85:
        for _ in range(rng.randint(1, 3)):
            kind = rng.choice(_KINDS[mostly])
            getattr(drawer, kind)()
            if kind == "convolution":
                drawer.finish()
    drawer.flatten()
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        drawer.linear(rng.choice((3, 4, 6, 8, 12)))
        drawer.finish()
    drawer.linear(rng.randint(2, 6))


def _said(letter: str, settings: dict[str, Any]) -> str:
    """The quantizer's class and what differs from its defaults, without what is written always."""
    kind = next(v for k, v in settings.items() if k.endswith("_quant"))
    others = [
        f"{k.removeprefix('weight_').removesuffix('_range')}={v}"
        for k, v in settings.items()
        if not k.endswith("_quant") and k != "return_quant_tensor"
    ]
    name = kind.__name__.replace("Weight", "").replace("Act", "")
    return f"{letter}:{name}" + (f"({','.join(others)})" if others else "")

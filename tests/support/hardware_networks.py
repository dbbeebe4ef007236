"""Small networks as designs, chosen or random, compared with the integer engine."""

import json
from dataclasses import dataclass
from pathlib import Path

import finn_networks
import numpy as np
import torch
from brevitas.nn import QuantConv2d, QuantIdentity, QuantLinear, QuantReLU
from brevitas.quant import Uint8ActPerTensorFloat
from numpy.typing import NDArray
from qonnx.core.modelwrapper import ModelWrapper
from torch import nn

from divqat_brevitas.training import calibrate
from fpga_flow import export_qonnx
from fpga_flow.compile import CompileSettings, FinnBuild, compare_steps, compile_finn
from fpga_flow.engines.bisect import bisect
from fpga_flow.engines.simulation import Answer, Simulation, compiled
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.lowering import clean, lower
from fpga_flow.rtl import Design, DesignSettings, generate_design

_LARGEST = 12  # PE or SIMD: wider units take long to compile


@dataclass(frozen=True)
class Hardware:
    """A network as QONNX, its FINN build and design, and the images that they are compared on."""

    path: Path
    build: FinnBuild
    design: Design
    images: NDArray[np.float32]
    cycles: int  # an image, asked for

    @classmethod
    def of(cls, path: Path, images: NDArray[np.float32], cycles: int) -> "Hardware":
        """Built beside the file ``path``, for an ECP5."""
        settings = CompileSettings(target="ecp5-85f", target_cycles=cycles)
        build = compile_finn(path, path.parent / "build", settings, finn_networks.finn_worker())
        design = generate_design(build, path.parent / "design", worker=finn_networks.finn_worker())
        return cls(path, build, design, images, cycles)

    @classmethod
    def quantized(cls, network: nn.Module, folder: Path, cycles: int) -> "Hardware":
        """A quantized network for 8x8 images, calibrated and exported."""
        images = np.random.default_rng(0).integers(0, 256, (24, 1, 8, 8)).astype(np.uint8)
        calibrate(network, torch.tensor(images))
        floats = images.astype(np.float32) / 255
        path = folder / "model.onnx"
        export_qonnx(network, path, floats)
        return cls.of(path, floats, cycles)

    @property
    def sums(self) -> NDArray[np.int64]:
        """The network's last sums, int64 (N, classes)."""
        engine = IntegerEngine(self.path)
        last = engine.network.output.tensor
        return engine.integers(self.images, [last])[last].reshape(len(self.images), -1)

    def check_steps(self) -> None:
        """FINN's graph has the network's integers after every step."""
        rows = compare_steps(self.build, self.path, self.images)
        assert [row.mismatches for row in rows] == [0] * len(rows)
        # The activations, found by name, and the last sums.
        assert {row.layers for row in rows} == {len(self.build.activations) + 1}

    def check_levels(self) -> None:
        """All levels, layer by layer."""
        found = bisect(self.path, self.images[:4], build=self.build, design=self.design)
        assert found.fault is None

    def run_with_stalls(self) -> tuple[Answer, Answer]:
        """What left the hardware without stalls and with them, both the network's sums."""
        # With taps, as bisect compiles it: one compilation for both.
        simulation = Simulation(self.design, compiled(self.design, taps=True))
        try:
            beats = self.design.beats(self.images)
            free = simulation.run(beats)
            stalled = simulation.run(beats, idle=30, back_pressure=40, seed=3, observe=True)
        finally:
            simulation.close()
        for answer in (free, stalled):
            assert np.array_equal(self.design.accumulators(answer.beats), self.sums)
        return free, stalled


@dataclass(frozen=True)
class Case:
    """A network on disk, its shape, and a generator that went into it."""

    onnx: Path
    shape: tuple[int, int, int]
    rng: np.random.Generator

    def images(self, count):
        return finn_networks.images(self.shape, count, seed=1)

    def integers(self, images):
        """Every layer's integers by tensor, int64 (N, ...), channels last."""
        values = lower(clean(self.onnx)).run(images)
        return {
            name: np.moveaxis(v, 1, -1).reshape(len(v), -1) if v.ndim == 4 else v
            for name, v in values.items()
        }


def random_case(folder, seed):
    """Two convolutions, pools or not, two linear layers: bits, kernels, strides, pads, signs."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    channels, rows, cols = (int(n) for n in rng.integers((1, 7, 7), (4, 12, 12)))
    shape = (channels, rows, cols)
    layers: list[nn.Module] = [
        QuantIdentity(
            act_quant=Uint8ActPerTensorFloat,
            bit_width=int(rng.choice([2, 4, 8])),
            scaling_impl_type="const",
            scaling_init=1.0,
            return_quant_tensor=True,
        )
    ]
    for _ in range(2):
        outputs = int(rng.choice([3, 4, 6, 8]))
        kernel = tuple(int(k) for k in rng.integers(2, 4, 2)) if rng.random() < 0.7 else (1, 1)
        stride = int(rng.integers(1, min(kernel) + 1))
        pad = int(rng.integers(0, 2)) if min(kernel) > 1 else 0
        layers += [
            QuantConv2d(channels, outputs, kernel, stride=stride, padding=pad, **_weights(rng, 9)),
            nn.BatchNorm2d(outputs),
            _activation(rng),
        ]
        channels = outputs
        rows, cols = (
            (n + 2 * pad - k) // stride + 1 for n, k in zip((rows, cols), kernel, strict=True)
        )
        if min(rows, cols) >= 3 and rng.random() < 0.7:
            size = int(rng.integers(2, 4))
            # FINN pads a pool with 0: no signed codes.
            pad = int(rng.integers(0, 2)) if isinstance(layers[-1], QuantReLU) else 0
            layers.append(nn.MaxPool2d(size, stride=2, padding=pad))
            rows, cols = ((n + 2 * pad - size) // 2 + 1 for n in (rows, cols))
    layers += [
        nn.Flatten(),
        QuantLinear(channels * rows * cols, 8, **_weights(rng, 9)),
        nn.BatchNorm1d(8),
        _activation(rng),
        QuantLinear(8, 5, **_weights(rng, 6)),
    ]
    path = finn_networks.export(nn.Sequential(*layers), shape, folder / "network.onnx")
    return Case(path, shape, rng)


def random_design(case, folder, style) -> Design:
    """A design of ``case`` with random PE, SIMD and FIFO depths."""
    worker = finn_networks.finn_worker()
    build = compile_finn(case.onnx, folder / "unfolded", CompileSettings(target_fps=None), worker)
    folding = folder / "folding.json"
    folding.write_text(json.dumps(_folding(build, case.rng)))
    build = compile_finn(case.onnx, folder / "build", CompileSettings(folding_json=folding), worker)
    depths = {"input_fifo": 0} if case.rng.random() < 0.3 else int(case.rng.choice([0, 2, 5]))
    return generate_design(
        build, folder / "design", DesignSettings(style=style, fifo_depths=depths), worker
    )


def _weights(rng, bits):
    return {
        "bias": bool(rng.integers(2)),
        "weight_bit_width": int(rng.integers(2, bits)),
        "weight_narrow_range": bool(rng.integers(2)),
    }


def _activation(rng):
    bits = int(rng.choice([2, 2, 3, 4, 5, 8]))
    if rng.random() < 0.6:
        return QuantReLU(bit_width=bits, return_quant_tensor=True)
    narrow = bool(rng.integers(2))
    return QuantIdentity(bit_width=bits, narrow_range=narrow, return_quant_tensor=True)


def _folding(build: FinnBuild, rng):
    model = ModelWrapper(str(build.steps["step_apply_folding_config"]))
    folding = json.loads(build.folding.read_text())
    before = None
    for node in model.graph.node:
        has = {a.name: a.i for a in node.attribute}
        ours = folding[node.name]
        sizes = {
            "PE": ("MH", "NumChannels", "Channels"),
            "SIMD": ("MW", "NumChannels", "IFMChannels"),
        }
        for name, products in sizes.items():
            if name in ours:
                size = next(has[p] for p in products if p in has)
                divisors = [d for d in range(1, _LARGEST + 1) if size % d == 0]
                ours[name] = int(rng.choice(divisors))
        if node.op_type.startswith("Pool"):
            folding[before]["SIMD"] = ours["PE"]
        before = node.name
    return folding

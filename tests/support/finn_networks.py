"""Small random Brevitas networks, exported to QONNX, and the process in which FINN builds them."""

import atexit
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from brevitas.export import export_qonnx
from brevitas.nn import QuantConv2d, QuantIdentity, QuantLinear, QuantReLU
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8WeightPerTensorFixedPoint,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
    Uint8ActPerTensorFixedPoint,
    Uint8ActPerTensorFloat,
)
from torch import nn

from fpga_flow.compile.worker_process import Worker

_WORKERS: list[Worker] = []


def pixels(quantizer=Uint8ActPerTensorFloat):
    """8-bit input quantizer of constant scale: 1/255, or 1/256 for fixed point."""
    return QuantIdentity(
        act_quant=quantizer,
        bit_width=8,
        scaling_impl_type="const",
        scaling_init=1.0,
        return_quant_tensor=True,
    )


def block(inputs, outputs, bits, **convolution):
    return [
        QuantConv2d(
            inputs, outputs, 3, padding=1, bias=False, weight_bit_width=bits, **convolution
        ),
        nn.BatchNorm2d(outputs),
        QuantReLU(bit_width=bits, return_quant_tensor=True),
    ]


def cnn(bits, size, channels=1):
    return nn.Sequential(
        pixels(),
        *block(channels, 8, bits),
        nn.MaxPool2d(2),
        *block(8, 12, bits),
        nn.MaxPool2d(2),
        nn.Flatten(),
        QuantLinear(12 * (size // 4) ** 2, 10, bias=True, weight_bit_width=bits),
    )


def mlp(bits, size):
    return nn.Sequential(
        pixels(),
        nn.Flatten(),
        QuantLinear(size**2, 24, bias=False, weight_bit_width=bits),
        nn.BatchNorm1d(24),
        QuantReLU(bit_width=bits, return_quant_tensor=True),
        QuantLinear(24, 10, bias=False, weight_bit_width=bits),
    )


def tied_cnn(size):
    """Power-of-two scales and no batch norm: accumulators sit exactly on rounding ties."""
    weights = {"weight_quant": Int8WeightPerTensorFixedPoint, "weight_bit_width": 4, "bias": False}
    return nn.Sequential(
        pixels(Uint8ActPerTensorFixedPoint),
        QuantConv2d(1, 8, 3, padding=1, **weights),
        QuantReLU(act_quant=Uint8ActPerTensorFixedPoint, bit_width=4, return_quant_tensor=True),
        nn.MaxPool2d(2),
        QuantConv2d(8, 8, 3, padding=1, **weights),
        QuantIdentity(
            act_quant=Int8ActPerTensorFixedPoint,
            bit_width=4,
            narrow_range=True,
            return_quant_tensor=True,
        ),
        nn.Flatten(),
        QuantLinear(8 * (size // 2) ** 2, 10, **weights),
    )


def binary_cnn(size):
    """Weights and activations -1 and +1: FINN counts bits (XNOR, popcount) between them."""
    weights = {"weight_quant": SignedBinaryWeightPerTensorConst, "bias": False}
    signs = {"act_quant": SignedBinaryActPerTensorConst, "return_quant_tensor": True}
    return nn.Sequential(
        pixels(),
        QuantConv2d(1, 8, 3, **weights),
        nn.BatchNorm2d(8),
        QuantIdentity(**signs),
        nn.MaxPool2d(2),
        nn.Flatten(),
        QuantLinear(8 * (size // 2 - 1) ** 2, 16, **weights),
        nn.BatchNorm1d(16),
        QuantIdentity(**signs),
        QuantLinear(16, 10, **weights),
    )


def export(network, shape, path: Path) -> Path:
    """Export after a few training-mode forwards; batch norm factors of both signs."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.3, 1.0, generator=generator)
            nn.init.normal_(module.bias, 0.0, 0.3, generator=generator)
    batch = torch.randint(0, 256, (64, *shape), generator=generator) / 255
    network.train()
    for _ in range(3):
        network(batch)
    network.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_qonnx(network, args=batch[:1], export_path=str(path), dynamo=False)
    return path


def images(shape, count, seed=0):
    """float32 (count, *shape): random pixels / 255, black and white images among them."""
    codes = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    codes[0], codes[1] = 0, 255
    return codes.astype(np.float32) / 255


def finn_worker() -> Worker:
    """FINN's process for all builds of a session: each would import FINN for seconds.

    Another one where the last died.
    """
    if not _WORKERS or not _WORKERS[-1].alive:
        folder = Path(tempfile.mkdtemp(prefix="divqat-finn-worker-"))
        _WORKERS.append(Worker(folder, folder / "finn.log"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        atexit.register(_WORKERS[-1].close)
    return _WORKERS[-1]

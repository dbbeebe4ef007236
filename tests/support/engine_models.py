"""A small exported network for engine tests."""

from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import torch
from brevitas.export import export_qonnx
from brevitas.quant import Uint8ActPerTensorFloat
from numpy.typing import NDArray
from torch import nn

from fpga_flow.lowering import clean, settle

SHAPE = (1, 8, 8)


def small_network(path: Path) -> Path:
    """W4A4: convolution, batch norm, ReLU, max-pool, linear; settled."""
    torch.manual_seed(0)
    model = nn.Sequential(
        qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True),
        qnn.QuantConv2d(1, 6, 3, padding=1, bias=False, weight_bit_width=4),
        nn.BatchNorm2d(6),
        qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        qnn.QuantLinear(96, 5, bias=True, weight_bit_width=4),
    )
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(8, *SHAPE))
    export_qonnx(model.eval(), args=torch.rand(1, *SHAPE), export_path=str(path), dynamo=False)
    cleaned = clean(path)
    settle(cleaned)
    cleaned.save(str(path))
    return path


def random_images(count: int, seed: int = 0) -> NDArray[np.float32]:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *SHAPE))
    return (pixels / np.float32(255)).astype(np.float32)

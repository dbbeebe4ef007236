"""One network all the way: trained a little, exported, executed as integers, compared."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from divqat_brevitas import DivQATLoss, freeze_reference
from divqat_brevitas.inference import plain
from fpga_flow import export_qonnx
from fpga_flow.export import ExportReport
from fpga_flow.export.execution import QonnxEngine
from fpga_flow.integer.engine import IntegerEngine


def images(shape: tuple[int, ...], count: int = 8) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    return pixels.astype(np.float32) / np.float32(255)


def trained(model: nn.Module, original: nn.Module, x: np.ndarray, steps: int = 2) -> nn.Module:
    """A few steps with DivQAT's loss against the frozen original."""
    criterion = DivQATLoss(freeze_reference(original), preset="nasty")
    optimizer = torch.optim.SGD(model.train().parameters(), 0.01)
    inputs = torch.from_numpy(x)
    labels = torch.arange(len(x)) % 10
    for _ in range(steps):
        optimizer.zero_grad()
        loss: Tensor = criterion(plain(model(inputs)), labels, inputs=inputs)
        assert torch.isfinite(loss)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def exported(model: nn.Module, x: np.ndarray, path: Path, exporter: Any) -> ExportReport:
    """Exported through the gate; the integer engine equals torch, and QONNX integer by integer."""
    report = export_qonnx(model, path, x, exporter=exporter)
    assert report.not_lowered is None
    assert report.parity.mismatches == 0
    assert report.parity.unit == "accumulators"
    integer, reference = IntegerEngine(path), QonnxEngine(path, batch=len(x))
    ours, theirs = integer.accumulators(x), reference.accumulators(x)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert np.array_equal(ours[name], theirs[name]), name
    with torch.no_grad():
        logits = plain(report.model(torch.from_numpy(x))).numpy().reshape(len(x), -1)
    assert np.array_equal(integer.predict(x).argmax(1), logits.argmax(1))
    return report

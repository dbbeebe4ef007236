"""Networks for the benchmarks of engines and attacks: float, quantised, and as files."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from divqat_brevitas.short_repr import ShortRepr

SHAPES = {"cifar-cnn": (3, 32, 32), "digits-cnn": (1, 8, 8), "resnet-8": (3, 32, 32)}
CLASSES = 10
BITS = "w4a4"


@dataclass(frozen=True)
class Exported(ShortRepr):
    """One network in four forms.

    Attributes:
        name: of the architecture.
        shape: (C, H, W) of an image.
        float_model: before quantization, in eval mode.
        model: the Brevitas module that the file was made from, at w4a4, in eval mode.
        qonnx: its QONNX file.
        float_onnx: the float network's ONNX file, with a free batch size.
    """

    name: str
    shape: tuple[int, int, int]
    float_model: nn.Module
    model: nn.Module
    qonnx: Path
    float_onnx: Path


def exported(name: str, folder: Path) -> Exported:
    """A network with random weights and batch norms that have seen random images.

    Speeds do not hang on what it has learnt; that its sums spread over its thresholds does.

    Args:
        name: one of ``SHAPES``.
        folder: of the files.

    Example:
        >>> exported("digits-cnn", Path("work")).qonnx  # doctest: +SKIP
        PosixPath('work/digits-cnn.onnx')
    """
    from divqat_brevitas import swap_quantizers
    from divqat_brevitas.models import build_model
    from divqat_brevitas.training import calibrate
    from fpga_flow import export_qonnx

    shape = SHAPES[name]
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, *shape), generator=generator, dtype=torch.uint8)
    network = build_model(name, shape, CLASSES, seed=0)
    _randomise(network, generator)
    pixels = images.float() / 255
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network(pixels)
    network.eval()
    quantized = swap_quantizers(network)
    calibrate(quantized, images)
    report = export_qonnx(quantized.eval(), folder / f"{name}.onnx", pixels[:16])
    float_onnx = folder / f"{name}-float.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the exporter needs no compilation
        torch.onnx.export(
            network,
            (pixels[:1],),
            str(float_onnx),
            input_names=["images"],
            dynamic_axes={"images": {0: "n"}},
            dynamo=False,
        )
    return Exported(name, shape, network, report.model, report.path, float_onnx)


def _randomise(network: nn.Module, generator: torch.Generator) -> None:
    """Scales and shifts of the batch norms as training would leave them, not ones and zeros."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0.0, 0.3, generator=generator)

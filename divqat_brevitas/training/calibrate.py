"""Post-training quantization: set the activations' scales from data, train nothing."""

import torch
from brevitas.graph.calibrate import calibration_mode
from torch import Tensor, nn

from divqat_brevitas.inference import device_of
from divqat_brevitas.training.evaluate import to_input


def calibrate(model: nn.Module, images: Tensor, batch_size: int = 100) -> None:
    """Set every activation scale from the ranges that the float network shows on ``images``.

    Afterwards the scales are ordinary parameters: QAT learns them from its first step.
    Weights and batch-norm statistics do not change.

    Args:
        model: a Brevitas network; changed in place, its mode is kept.
        images: (N, C, H, W) uint8, a few hundred training images.
        batch_size: images a forward pass.
    """
    mode = model.training
    model.eval()
    with torch.no_grad(), calibration_mode(model):
        for batch in torch.split(images, batch_size):
            model(to_input(batch, device_of(model)))
    model.train(mode)

"""Post-training quantization: set the activations' scales from data, train nothing."""

import torch
from brevitas.graph.calibrate import calibration_mode
from torch import Tensor, nn

from divqat_brevitas.inference import device_of
from divqat_brevitas.quant.input_fit import first_quantizer_fit, warn_of_cut
from divqat_brevitas.training.evaluate import to_input


def calibrate(model: nn.Module, images: Tensor, batch_size: int = 100) -> None:
    """Set every activation scale from the ranges that the float network shows on ``images``.

    Afterwards the scales are ordinary parameters: QAT learns them from its first step.
    Weights and batch-norm statistics do not change. An ``InputRangeWarning`` says where the first
    quantizer cuts more than 1 % of the values that reach it, as one with a constant scale does
    that is given normalised images.

    Args:
        model: a Brevitas network; changed in place, its mode is kept.
        images: a few hundred training inputs: (N, C, H, W) uint8, which the network gets as
            pixel/255, or (N, ...) floats, which it gets as they are.
        batch_size: images a forward pass.
    """
    mode = model.training
    model.eval()
    with torch.no_grad(), calibration_mode(model):
        for batch in torch.split(images, batch_size):
            model(to_input(batch, device_of(model)))
    model.train(mode)
    warn_of_cut(first_quantizer_fit(model, to_input(images)))

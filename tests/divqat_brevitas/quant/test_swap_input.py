"""Where the image quantizer goes, and that it holds what arrives."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from divqat_brevitas import swap_quantizers
from divqat_brevitas.quant import InputRangeWarning, Uint8ImageDivQAT
from divqat_brevitas.quant.input_fit import InputFit, calibrate, first_quantizer_fit
from divqat_brevitas.quant.scaled_input import scales_input

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Net(nn.Module):
    def __init__(self, scaling: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.scaling = scaling
        self.register_buffer("mean", MEAN.reshape(3, 1, 1))
        self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()
        self.last = nn.Linear(4 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(self.scaling(x)))
        if x.sum() > 1e9:  # no tracing beyond the first layer
            x = x / 2
        return self.last(x.flatten(1))


def pixels() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (64, 3, 8, 8), generator=generator).byte()


def fit(model: nn.Module, inputs: Tensor) -> InputFit:
    found = first_quantizer_fit(model, inputs)
    assert found is not None
    return found


NORMALISING = [
    lambda x: (x - MEAN.reshape(3, 1, 1)) / STD.reshape(3, 1, 1),
    lambda x: x.sub(0.5).div(0.25),
    lambda x: 2 * x - 1,
    nn.BatchNorm2d(3),
    lambda x: F.batch_norm(x, MEAN, STD * STD),
    lambda x: torch.log(x + 1),
    lambda x: (x / 255 - 0.5) / 0.25,
]
PLAIN = [
    lambda x: x,
    lambda x: x.float() / 255,
    lambda x: x * (1 / 255),
    lambda x: F.pad(x, (1, 1, 1, 1))[:, :, 1:-1, 1:-1],
    lambda x: x.reshape(x.size(0), 3, 8, 8),
    nn.Identity(),
]


@pytest.mark.parametrize("scaling", NORMALISING)
def test_scaling_before_the_first_layer_is_seen(scaling: Callable[[Tensor], Tensor]) -> None:
    assert scales_input(Net(scaling), "conv")


@pytest.mark.parametrize("scaling", PLAIN)
def test_pixels_that_stay_pixels_keep_the_image_quantizer(
    scaling: Callable[[Tensor], Tensor],
) -> None:
    assert not scales_input(Net(scaling), "conv")


@pytest.mark.parametrize("scaling", NORMALISING[:4])
def test_the_swaps_first_quantizer_holds_what_arrives(scaling: Callable[[Tensor], Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputRangeWarning)
        swapped = swap_quantizers(Net(scaling).eval())
        calibrate(swapped, pixels())
    measured = fit(swapped, pixels() / 255)
    assert measured.cut < 0.001  # the scale comes from a percentile of 99.999 %
    assert measured.seen[1] - measured.seen[0] > 0.3 * (measured.held[1] - measured.held[0])


def test_ordinary_images_never_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputRangeWarning)
        swapped = swap_quantizers(Net(nn.Identity()))
        for value in (0, 255):
            calibrate(swapped, torch.full((4, 3, 8, 8), value).byte())
        calibrate(swapped, pixels())
        swapped.train()(pixels() / 255)
    assert fit(swapped, pixels() / 255).cut == 0


def test_standardised_images_warn_at_calibration_and_in_the_first_batch() -> None:
    """Not only at the export, behind the training."""
    standardised = (pixels() / 255 - 0.5) / 0.25
    swapped = swap_quantizers(Net(nn.Identity()))
    with pytest.warns(InputRangeWarning, match=r"from -2 to 2, but holds 0 to 1: .*are cut"):
        calibrate(swapped, standardised)
    swapped.train()
    with pytest.warns(InputRangeWarning, match=r"\d\d\.\d% of them are cut.*input_act"):
        swapped(standardised)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputRangeWarning)
        swapped(standardised)  # once is enough


def test_less_than_one_percent_is_no_matter() -> None:
    swapped = swap_quantizers(Net(nn.Identity()), input_act=Uint8ImageDivQAT)
    inputs = pixels() / 255
    count = inputs.numel()
    inputs.reshape(-1)[: count // 100] = 3
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputRangeWarning)
        calibrate(swapped, inputs)
    inputs.reshape(-1)[: count // 100 + 1] = 3
    with pytest.warns(InputRangeWarning, match="to 3, .*1.0% of them"):
        calibrate(swapped, inputs)

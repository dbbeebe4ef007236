"""Training beside the CPU: refused where there is no such device, and equal in kind where there is.

What needs a CUDA device is skipped without one.
"""

import numpy as np
import pytest
import torch
from torch import nn

from divqat_brevitas import DivQATLoss, freeze_reference
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import SurrogateTraining, build_surrogate
from divqat_brevitas.extraction.attacks.semi import MixMatch, train_mixmatch
from divqat_brevitas.extraction.surrogates.training import train_surrogate
from divqat_brevitas.models import build_model, quantize
from divqat_brevitas.training import TrainSettings, calibrate, train

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("device", ["cpux", "", "meta", "cuda:99", "cuda:-1"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(InputError, match=r"device='.*' is (none of|missing)"):
        SurrogateTraining(device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_without_cuda() -> None:
    with pytest.raises(InputError, match="PyTorch has the CPU and 0 CUDA devices"):
        SurrogateTraining(device="cuda")


def test_the_named_cpu_is_the_cpu() -> None:
    clones = []
    for device in ("cpu", "cpu:0"):
        clone = build_surrogate("mlp", (1, 8, 8), 3, 0)
        train_surrogate(
            clone, *problem(), epochs=1, seed=0, settings=SurrogateTraining(device=device)
        )
        clones.append(clone.state_dict())
    assert all(torch.equal(clones[0][k], clones[1][k]) for k in clones[0])


class _Followed(DivQATLoss):
    """Remembers where it is sent."""

    def to(self, *args, **kwargs):
        self.sent = args
        return super().to(*args, **kwargs)


def test_the_loss_follows_the_network_to_its_device() -> None:
    images, labels = torch.randint(0, 256, (12, 1, 8, 8)).byte(), torch.arange(12) % 3
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    criterion = _Followed(freeze_reference(net), "decoy", weight=0.01)
    train(
        net,
        criterion,
        train=(images, labels),
        val=(images, labels),
        settings=TrainSettings(epochs=1, batch_size=12),
    )
    assert criterion.sent == (torch.device("cpu"),)


@cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_clone_trained_on_cuda_comes_back(precision: str) -> None:
    settings = SurrogateTraining(
        device="cuda", precision=precision, shift=1, flip=True, holdout=0.2
    )
    clone = build_surrogate("compact", (1, 8, 8), 3, 0)
    history = train_surrogate(clone, *problem(), epochs=3, seed=0, settings=settings)
    assert {p.device.type for p in clone.parameters()} == {"cpu"}
    assert history[-1]["loss"] < history[0]["loss"]
    images, targets = problem()
    train_mixmatch(
        clone, images[:30], targets[:30], images, epochs=1, seed=0, training=settings,
        settings=MixMatch(),
    )  # fmt: skip
    assert {p.device.type for p in clone.parameters()} == {"cpu"}


@cuda
@pytest.mark.parametrize("variant", ["nasty", "decoy"])
def test_a_victim_trains_on_cuda_with_its_reference_and_outliers(variant: str) -> None:
    images, labels = torch.randint(0, 256, (60, 1, 8, 8)).byte(), torch.arange(60) % 3
    net = build_model("digits-cnn", (1, 8, 8), 3)
    victim = quantize(net, "w4a4")
    calibrate(victim, images)
    result = train(
        victim.cuda(),
        DivQATLoss(freeze_reference(net), variant, weight=0.01),
        train=(images, labels),
        val=(images, labels),
        settings=TrainSettings(epochs=2, batch_size=20, precision="bfloat16"),
    )
    assert len(result.history) == 2
    assert {p.device.type for p in victim.parameters()} == {"cuda"}


def problem() -> tuple[np.ndarray, np.ndarray]:
    """Which third of the image is bright."""
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    images = 0.5 * rng.random((150, 1, 8, 8), np.float32)
    for i, label in enumerate(labels):
        images[i, :, 2 * label : 2 * label + 2] += 0.5
    return images, np.eye(3, dtype=np.float32)[labels]

"""The networks of data-free attacks: generator, discriminator, and the students with their memory.

The generator is that of Data-Free Model Extraction (Truong et al., CVPR 2021; "GeneratorA" of its
code): a linear layer, then twice an enlargement and 3×3 convolutions. It is made for any image of
at least 8×8 and is narrower (64, 32, 16 channels instead of 128, 128, 64): it has few queries to
learn from and should not cost more than the students.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.extraction.arrays import Responses
from divqat_brevitas.extraction.learners.base import TransferSet
from divqat_brevitas.extraction.learners.targets import training_targets
from divqat_brevitas.extraction.surrogates.training import PRECISIONS, SurrogateTraining

LATENT = 100
WIDTH = 32


class Generator(nn.Module):
    """Noise (N, latent) to images (N, C, H, W) in [0, 1].

    The last batch normalisation, without weights of its own, keeps the pixels' spread from
    collapsing (as in the source). The network always uses batch statistics, in training mode.

    Args:
        shape: (C, H, W) of an image.
        latent: number of noise values for an image.
        width: number of channels of the last hidden layer.
    """

    def __init__(
        self, shape: tuple[int, int, int], latent: int = LATENT, width: int = WIDTH
    ) -> None:
        super().__init__()
        channels, height, width_ = shape
        self.latent = latent
        self.sizes = [(-(-height // d), -(-width_ // d)) for d in (4, 2, 1)]
        first = self.sizes[0]
        self.seed = nn.Linear(latent, 2 * width * first[0] * first[1])
        self.norm = nn.BatchNorm2d(2 * width)
        self.coarse = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)
        )
        self.fine = nn.Sequential(
            nn.Conv2d(width, width // 2, 3, padding=1),
            nn.BatchNorm2d(width // 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width // 2, channels, 3, padding=1),
            nn.BatchNorm2d(channels, affine=False),
        )

    def before_squash(self, noise: Tensor) -> Tensor:
        """Images before the squashing to [0, 1], for zeroth-order estimates."""
        x = self.norm(self.seed(noise).unflatten(1, (-1, *self.sizes[0])))
        x = self.coarse(F.interpolate(x, self.sizes[1]))
        out: Tensor = self.fine(F.interpolate(x, self.sizes[2]))
        return out

    def forward(self, noise: Tensor) -> Tensor:
        """Images in [0, 1]."""
        return squash(self.before_squash(noise))

    def noise(self, count: int, draws: torch.Generator) -> Tensor:
        """New noise (count, latent)."""
        return torch.randn(count, self.latent, generator=draws)

    @torch.no_grad()
    def images(self, count: int, draws: torch.Generator) -> Tensor:
        """New images (count, C, H, W) in [0, 1], without gradients."""
        out: Tensor = self(self.noise(count, draws))
        return out


def squash(x: Tensor) -> Tensor:
    """Map any numbers to [0, 1] by a shifted tanh."""
    return (torch.tanh(x) + 1) / 2


def discriminator(shape: tuple[int, int, int], width: int = WIDTH) -> nn.Module:
    """Images to one logit (N, 1), large for proxy images (DCGAN: Radford et al., ICLR 2016)."""
    channels, height, width_ = shape
    cells = -(-height // 4) * -(-width_ // 4)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 3, 2, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(2 * width * cells, 1),
    )


SMALLEST_PROBABILITY = 1e-10


def recovered_logits(probabilities: Tensor) -> Tensor:
    """Logits without their mean, which probabilities do not contain: log p - mean(log p).

    See DFME, sec. 4.3.
    """
    logs = probabilities.clamp_min(SMALLEST_PROBABILITY).log()
    return logs - logs.mean(dim=1, keepdim=True)


@dataclass(frozen=True)
class Matching:
    """What a student is trained to match, by oracle and learner.

    The l1 distance to logits recovered from probabilities where all probabilities are shown and
    taken as they are, or at another temperature; otherwise (labels, or probabilities cut to k or
    rounded, whose logarithms mean nothing) cross-entropy.

    Attributes:
        method: of making targets from responses, see
            :mod:`divqat_brevitas.extraction.learners.targets`.
        l1: l1 on logits instead of cross-entropy.
    """

    method: str
    l1: bool

    @classmethod
    def of(cls, oracle: str, method: str) -> "Matching":
        """For responses of ``oracle``."""
        whole = oracle in ("logits", "soft")
        return cls(method, whole and method.partition(":")[0] in ("soft", "temperature"))

    def targets(self, responses: Responses) -> Tensor:
        """Targets (N, classes) for responses on the scale of probabilities."""
        targets = torch.from_numpy(training_targets(responses, self.method))
        return recovered_logits(targets) if self.l1 else targets

    def distances(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The distance of each image, (N,)."""
        if self.l1:
            return (logits - targets).abs().mean(dim=1)
        return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1)


class Memory:
    """Queried images, uint8, with their responses and the targets made of these."""

    def __init__(
        self, capacity: int, shape: tuple[int, int, int], classes: int, matching: Matching
    ) -> None:
        self.matching = matching
        self.images = torch.zeros((capacity, *shape), dtype=torch.uint8)
        self.responses = np.zeros((capacity, classes), np.float32)
        self.targets = torch.zeros((capacity, classes))
        self.size = 0

    def add(self, images: NDArray[np.uint8], responses: Responses) -> None:
        """Remember a batch."""
        end = self.size + len(images)
        self.images[self.size : end] = torch.from_numpy(images)
        self.responses[self.size : end] = responses
        self.targets[self.size : end] = self.matching.targets(responses)
        self.size = end

    def transfer_set(self) -> TransferSet:
        """The queried images and their responses.

        Raises:
            InputError: all responses are zero.
        """
        responses = self.responses[: self.size]
        if not responses.any():
            raise InputError(
                "the responses contain nothing to train on: all entries are zero. The oracle "
                "rounds too coarsely for the number of classes."
            )
        return TransferSet(self.images[: self.size].numpy(), responses)

    def batches(
        self, size: int, count: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """``count`` random batches of up to ``size`` images, as float, and their targets."""
        for _ in range(count):
            rows = torch.randint(self.size, (min(size, self.size),), generator=generator)
            yield self._float(rows), self.targets[rows]

    def epoch(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once in random order, in parts of about ``size``, never of one image."""
        parts = max(1, self.size // size)
        for rows in torch.randperm(self.size, generator=generator).tensor_split(parts):
            yield self._float(rows), self.targets[rows]

    def _float(self, rows: Tensor) -> Tensor:
        images = self.images[rows].float() / 255
        return images.to(memory_format=torch.channels_last)


class SoftVote(nn.Module):
    """Several networks as one: the logarithm of their mean probability."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes)."""
        logs = torch.stack([F.log_softmax(member(images), dim=1) for member in self.members])
        return logs.logsumexp(dim=0) - float(np.log(len(self.members)))


class Students:
    """One or more networks trained on the same batches, by SGD with Nesterov momentum.

    They use learning_rate, momentum, weight_decay, clip_norm and precision of the training
    settings; the attack sets the batches and the schedule.
    """

    def __init__(
        self, networks: list[nn.Module], matching: Matching, training: SurrogateTraining
    ) -> None:
        self.networks = networks
        self.matching = matching
        self.training = training
        self._optimizers = []
        for network in networks:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._optimizers.append(
                torch.optim.SGD(
                    network.parameters(),
                    lr=training.learning_rate,
                    momentum=training.momentum,
                    weight_decay=training.weight_decay,
                    nesterov=True,
                )
            )

    def cast(self) -> torch.autocast:
        """The precision of the products."""
        dtype = PRECISIONS[self.training.precision]
        return torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)

    def logits(self, images: Tensor) -> list[Tensor]:
        """Each network's logits, (N, classes), in its current mode."""
        with self.cast():
            return [network(images).float() for network in self.networks]

    def step(self, images: Tensor, targets: Tensor, rate: float = 1.0) -> float:
        """One step of each network on a batch; returns the mean loss.

        Raises:
            CheckFailedError: the loss is no longer finite.
        """
        total = 0.0
        for network, optimizer in zip(self.networks, self._optimizers, strict=True):
            network.train()
            with self.cast():
                logits = network(images)
            loss = self.matching.distances(logits.float(), targets).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), self.training.clip_norm)
            optimizer.param_groups[0]["lr"] = self.training.learning_rate * rate
            optimizer.step()
            total += loss.item() / len(self.networks)
        if not np.isfinite(total):
            raise CheckFailedError(
                f"a student's training diverged (loss {total}). Lower its learning rate, now "
                f"{self.training.learning_rate}."
            )
        return total

    @contextmanager
    def frozen(self) -> Iterator["Students"]:
        """The students in eval mode, without gradients to their weights, for a generator's step."""
        for network in self.networks:
            network.eval().requires_grad_(False)
        try:
            yield self
        finally:
            for network in self.networks:
                network.requires_grad_(True)

    def clone(self) -> nn.Module:
        """The networks as one module, in eval mode."""
        for network in self.networks:
            network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        whole = self.networks[0] if len(self.networks) == 1 else SoftVote(self.networks)
        return whole.eval()

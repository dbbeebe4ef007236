"""A victim as a torch module without gradients, for decision- and score-based attacks.

Foolbox (``foolbox.PyTorchModel(module, bounds=(0, 1))``), torchattacks' black-box attacks and
plain code that calls ``model(images)`` take it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.victim import Victim


class GradientError(InputError):
    """A gradient was asked of a black box."""


class _NoGradient(torch.autograd.Function):
    """The answers, with a backward pass that explains instead of giving zeros or None."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, answers: Tensor) -> Tensor:
        return answers

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise GradientError(
            "a gradient was asked of a victim that returns only responses. Use an attack that "
            "needs none (foolbox: BoundaryAttack, HopSkipJumpAttack; torchattacks: Square, "
            "OnePixel; "
            "ART: HopSkipJump, SquareAttack), or train a clone and use the clone's gradient."
        )


class VictimModule(nn.Module):
    """A victim as a torch module; made by :func:`as_torch_callable`.

    It has no parameters, is always in evaluation mode, and answers on the device of the images.

    Attributes:
        victim: answers and counts.
    """

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim = victim
        super().train(False)

    def train(self, mode: bool = True) -> "VictimModule":
        """Stays in evaluation mode: there is nothing to train."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """The oracle's answers, float32 (N, classes), to images (N, C, H, W) in [0, 1].

        Raises:
            BudgetExceededError: fewer than N queries are left; nothing was asked or counted.
            GradientError: on a backward pass through the answers.
            InputError: bad images, see :meth:`Victim.query`.
        """
        if not isinstance(images, Tensor):
            raise InputError(f"images must be a torch tensor, but came as {type(images).__name__}.")
        asked = np.ascontiguousarray(images.detach().to("cpu", torch.float32).numpy())
        answers = torch.from_numpy(self.victim.query(asked)).to(images.device)
        if images.requires_grad:
            marked: Tensor = _NoGradient.apply(images, answers)  # type: ignore[no-untyped-call]
            return marked
        return answers


def as_torch_callable(victim: Victim) -> VictimModule:
    """A victim as a callable, torch images to the oracle's answers; every image is one query.

    Args:
        victim: answers and counts. The answers are what its oracle shows: logits, probabilities,
            or one-hot labels ("top1", for decision-based attacks).

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> ask = as_torch_callable(Victim(model, oracle="top1", budget=10))
        >>> ask(torch.zeros(3, 1, 8, 8)).sum()
        tensor(3.)
        >>> ask(torch.zeros(1, 1, 8, 8, requires_grad=True)).sum().backward()
        Traceback (most recent call last):
        ...
        divqat_brevitas.interop.callables.GradientError: a gradient was asked of a victim ...
    """
    return VictimModule(victim)

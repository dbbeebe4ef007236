"""A victim as other toolboxes take it: ART's classifiers, torch callables.

Foolbox (``foolbox.PyTorchModel(module, bounds=(0, 1))``), torchattacks' black-box attacks and plain
code that calls ``model(images)`` take the callable. Every image that a toolbox asks goes through
:meth:`Victim.query`, so the ledger counts it and the budget stops it.

Example:
    >>> from divqat_brevitas.extraction import Victim
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> victim = Victim(model, oracle="soft", budget=5)
    >>> as_torch_callable(victim)(torch.zeros(2, 1, 8, 8)).shape, victim.queries_used
    (torch.Size([2, 10]), 2)
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.victim import Victim

if TYPE_CHECKING:
    from divqat_brevitas.interop.art import VictimClassifier

__all__ = ["GradientError", "as_art_classifier", "as_torch_callable"]


class GradientError(InputError):
    """A gradient was asked of a black box."""


class _NoGradient(torch.autograd.Function):
    """The responses, with a backward pass that explains instead of giving zeros or None."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, responses: Tensor) -> Tensor:
        return responses

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

    It has no parameters, is always in evaluation mode, and responds on the device of the images.

    Attributes:
        victim: is asked and counts.
    """

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim = victim
        super().train(False)

    def train(self, mode: bool = True) -> "VictimModule":
        """Stays in evaluation mode: there is nothing to train."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """The oracle's responses, float32 (N, classes), to images (N, C, H, W) in [0, 1].

        Raises:
            BudgetExceededError: fewer than N queries are left; nothing was asked or counted.
            GradientError: on a backward pass through the responses.
            InputError: bad images, see :meth:`Victim.query`.
        """
        if not isinstance(images, Tensor):
            raise InputError(f"images must be a torch tensor, but came as {type(images).__name__}.")
        asked = np.ascontiguousarray(images.detach().to("cpu", torch.float32).numpy())
        responses = torch.from_numpy(self.victim.query(asked)).to(images.device)
        if images.requires_grad:
            marked: Tensor = _NoGradient.apply(images, responses)  # type: ignore[no-untyped-call]
            return marked
        return responses


def as_torch_callable(victim: Victim) -> VictimModule:
    """A victim as a callable, torch images to the oracle's responses; every image is one query.

    Args:
        victim: is asked and counts. The responses are what its oracle shows: logits, probabilities,
            or one-hot labels ("top1", for decision-based attacks).

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> ask = as_torch_callable(Victim(model, oracle="top1", budget=10))
        >>> ask(torch.zeros(3, 1, 8, 8)).sum()
        tensor(3.)
        >>> ask(torch.zeros(1, 1, 8, 8, requires_grad=True)).sum().backward()
        Traceback (most recent call last):
        ...
        divqat_brevitas.interop.GradientError: a gradient was asked of a victim ...
    """
    return VictimModule(victim)


def as_art_classifier(
    victim: Victim, *, input_shape: tuple[int, int, int], classes: int
) -> "VictimClassifier":
    """A victim as an ART classifier without gradients.

    ART's attacks are not told of the budget: give them what it allows (``nb_stolen=...``). One
    that asks for more meets the victim's own ``BudgetExceededError``. ART's KnockoffNets and
    CopycatCNN draw from NumPy's global random state; seed it yourself (``np.random.seed``) for
    runs that can be repeated.

    Args:
        victim: is asked and counts. ART takes the responses of any oracle as class scores.
        input_shape: (C, H, W) of an image. Asking the victim for it would cost a query.
        classes: how many the victim tells apart.

    Raises:
        ToolMissingError: ART is not installed.
        InputError: no such shape or number of classes.

    Example:
        >>> from art.attacks.extraction import KnockoffNets  # doctest: +SKIP
        >>> classifier = as_art_classifier(  # doctest: +SKIP
        ...     victim, input_shape=(1, 28, 28), classes=10
        ... )
        >>> attack = KnockoffNets(classifier, nb_stolen=1000)  # doctest: +SKIP
        >>> attack.extract(images, thieved_classifier=clone)  # doctest: +SKIP
        >>> victim.queries_used  # doctest: +SKIP
        1000
    """
    from divqat_brevitas.interop.art import VictimClassifier

    shape = tuple(input_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"input_shape must be (channels, height, width), but is {input_shape!r}.")
    if classes < 2:
        raise InputError(f"classes must be at least 2, but is {classes!r}.")
    return VictimClassifier(victim, shape, classes)

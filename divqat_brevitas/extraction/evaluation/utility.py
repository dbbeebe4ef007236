"""The cost of a defence for honest users, beyond accuracy.

A victim trained to diverge from its float original may keep its labels and still lose useful
probabilities. :func:`utility_row` measures calibration, likelihood, distance and decision flips
from the float reference, how well confidence separates test images from out-of-distribution ones,
and whether adversarial examples made on the float model work on the device. (The owner has the
float model, and an attacker may have it as a clone.) An attack may also use the gap between the two
models that this training widens (Hao et al., "A Tale of Two Models: Constructing Evasive Attacks on
Edge Models", MLSys 2022, "DIVA"). That attack is not implemented; ``evasive`` counts its
precondition.
"""

from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import (
    Images,
    Responses,
    check_images,
    check_labels,
    check_logits,
    substream,
)
from divqat_brevitas.extraction.evaluation.metrics import (
    ece,
    flips_from_reference,
    l1_to_reference,
    nll,
    ood_auroc,
)
from divqat_brevitas.inference import as_logits, device_of, evaluating
from divqat_brevitas.short_repr import ShortRepr


class TransferRow(TypedDict):
    """Adversarial examples made on the float reference, tried on the device.

    All are fractions of ``images``, the images that both models classify correctly without the
    perturbation.
    """

    images: int
    reference_fooled: float
    device_fooled: float
    transferred: float | None
    evasive: float


class UtilityRow(TypedDict):
    """Utility of one victim on the test set; accuracies are fractions of 1."""

    accuracy: float
    ece: float
    nll: float
    l1_to_reference: float
    flips_from_reference: float
    ood_auroc: float | None
    adversarial: dict[str, TransferRow]


@dataclass(frozen=True)
class AdversarialLogits(ShortRepr):
    """Logits of both models for adversarial versions of the test images.

    Attributes:
        engine: the device's logits, float32 (N, classes).
        reference: the float reference's logits, float32 (N, classes).
    """

    engine: Responses
    reference: Responses


def utility_row(
    engine_logits: Responses,
    reference_logits: Responses,
    labels: NDArray[Any],
    ood_logits: Responses | None = None,
    adversarial: dict[str, AdversarialLogits] | None = None,
) -> UtilityRow:
    """Everything about one victim that its users may notice.

    Args:
        engine_logits: of the victim (as its engine computes them) on the test images, float32
            (N, classes).
        reference_logits: of the float model it came from, on the same images.
        labels: of the test images, integers (N,).
        ood_logits: of the victim on out-of-distribution images, float32 (M, classes).
        adversarial: attack name, such as "pgd-0.03", to logits on the images it made from these
            test images, in the same order.

    Raises:
        InputError: logits or labels that do not belong together.

    Example:
        >>> logits = np.array([[2, 0], [0, 1]], np.float32)
        >>> row = utility_row(logits, logits, np.array([0, 1]), ood_logits=logits / 2)
        >>> row["accuracy"], row["flips_from_reference"], row["ood_auroc"]
        (1.0, 0.0, 0.875)
    """
    logits = check_logits(engine_logits, None, "the engine's logits")
    labels = check_labels(labels, len(logits))
    return UtilityRow(
        nll=nll(logits, labels),
        ece=ece(logits, labels),
        accuracy=float((logits.argmax(axis=1) == labels).mean()),
        l1_to_reference=l1_to_reference(logits, reference_logits),
        flips_from_reference=flips_from_reference(logits, reference_logits),
        ood_auroc=None if ood_logits is None else ood_auroc(logits, ood_logits),
        adversarial={
            name: transfer_row(logits, reference_logits, labels, examples)
            for name, examples in (adversarial or {}).items()
        },
    )


def transfer_row(
    engine_logits: Responses,
    reference_logits: Responses,
    labels: NDArray[Any],
    adversarial: AdversarialLogits,
) -> TransferRow:
    """How often adversarial examples of the float reference work on the device.

    The images that both models classify correctly are counted. ``transferred`` is the share of
    those fooling the reference that also fool the device (None if none fools the reference), as in
    Papernot et al., "Transferability in Machine Learning", 2016, section 2. ``evasive`` is the
    share that fools the device while the reference, which a developer would check, stays correct.

    Raises:
        InputError: shapes that do not belong together, or no image that both get right.

    Example:
        >>> clean, perturbed = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[::-1]
        >>> examples = AdversarialLogits(engine=clean, reference=perturbed.copy())
        >>> transfer_row(clean, clean, np.array([0, 1]), examples)["transferred"]
        0.0
    """
    labels = check_labels(labels, len(engine_logits))
    device_right, reference_right, device_still, reference_still = (
        check_logits(logits, len(labels), what).argmax(axis=1) == labels
        for logits, what in (
            (engine_logits, "the device's logits"),
            (reference_logits, "the reference's logits"),
            (adversarial.engine, "the device's logits on adversarial images"),
            (adversarial.reference, "the reference's logits on adversarial images"),
        )
    )
    both = device_right & reference_right
    if not both.any():
        raise InputError(
            "no image is classified correctly by both device and reference, so there is nothing "
            "to fool. Check that images, labels and models belong together."
        )
    device_fooled, reference_fooled = ~device_still[both], ~reference_still[both]
    return TransferRow(
        images=int(both.sum()),
        reference_fooled=float(reference_fooled.mean()),
        device_fooled=float(device_fooled.mean()),
        transferred=float(device_fooled[reference_fooled].mean())
        if reference_fooled.any()
        else None,
        evasive=float((device_fooled & ~reference_fooled).mean()),
    )


def adversarial_examples(
    model: nn.Module,
    images: Images,
    labels: NDArray[Any],
    eps: float = 8 / 255,
    steps: int = 10,
    *,
    seed: int = 0,
    batch_size: int = 256,
) -> Images:
    """Images within ``eps`` (ℓ∞) of ``images`` that raise the model's cross-entropy.

    One step is FGSM (Goodfellow et al., ICLR 2015, section 4): the gradient's sign times ``eps``.
    More are PGD (Madry et al., ICLR 2018, eq. 3): a random start in the ball, steps of
    ``2.5 * eps / steps`` (their appendix), projected onto the ball and [0, 1] after each. The
    model runs in eval mode; its parameters and their gradients do not change.

    Args:
        model: images (N, C, H, W) to logits; the float reference, where gradients are exact.
        images: float32 NCHW in [0, 1].
        labels: integers (N,).
        eps: radius in pixel values, above 0 and at most 1.
        steps: gradient steps, at least 1.
        seed: of the random start.
        batch_size: images a forward pass; does not change the result beyond rounding.

    Returns:
        float32 of the shape of ``images``, in [0, 1].

    Raises:
        InputError: bad images, labels, radius, number of steps, or a model without gradient.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> images = np.full((4, 1, 8, 8), 0.5, np.float32)
        >>> perturbed = adversarial_examples(model, images, np.arange(4), eps=0.1, steps=2)
        >>> bool(abs(perturbed - images).max() <= 0.1 + 1e-6)
        True
    """
    check_images(images)
    labels = check_labels(labels, len(images))
    if not 0 < eps <= 1 or steps < 1 or batch_size < 1:
        raise InputError(
            "adversarial examples need 0 < eps <= 1 (in pixel values from 0 to 1), at least one "
            f"step and one image a batch, but got eps={eps}, steps={steps}, "
            f"batch_size={batch_size}."
        )
    start = images
    if steps > 1:
        noise = substream(seed, "adversarial start").uniform(-eps, eps, images.shape)
        start = np.clip(images + noise.astype(np.float32), 0, 1)
    step = eps if steps == 1 else 2.5 * eps / steps
    device = device_of(model)
    examples = np.empty_like(images)
    with evaluating(model):
        for i in range(0, len(images), batch_size):
            part = slice(i, i + batch_size)
            clean = torch.tensor(images[part], device=device)
            perturbed = torch.tensor(start[part], device=device)
            truth = torch.tensor(labels[part], device=device)
            for _ in range(steps):
                perturbed = perturbed + step * _gradient(model, perturbed, truth).sign()
                perturbed = torch.clamp(torch.clamp(perturbed, clean - eps, clean + eps), 0, 1)
            examples[part] = perturbed.cpu().numpy()
    return examples


def _gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the summed cross-entropy: no image's gradient depends on its batch."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        try:
            logits = as_logits(model(images), len(images), type(model).__name__)
            loss = F.cross_entropy(logits.float(), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, images)
        except (RuntimeError, IndexError) as e:
            raise InputError(
                f"{type(model).__name__} gives no gradient for images of shape "
                f"{tuple(images.shape)}: {e}. Give the float torch model, not an engine."
            ) from e
    return gradient

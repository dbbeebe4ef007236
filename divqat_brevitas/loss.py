"""The DivQAT loss: fit the labels, diverge from the full-precision reference.

A documented reconstruction, since the full text of DivQAT (arXiv 2512.23948) is not
available: its abstract and reviews give cross-entropy plus a Kullback-Leibler term between
the quantized network and its full-precision original, which training *maximises*. Order of
the arguments, temperature and weights are not published; the presets name the choices.

With p = softmax(f(x)/T) of the frozen reference, q = softmax(f_q(x)/T) of the quantized
network and a one-hot label y::

    L = w_ce·CE(f_q(x), y) − w_div·T²·mean_batch(min(D(p, q), cap))

    literal   D = KL(p‖q), T = 1, w_ce = 1,   w_div = α
    convex    D = KL(p‖q), T = 1, w_ce = 1−α, w_div = α
    nasty     D = KL(q‖p), T = 4, w_ce = 1,   w_div = 0.04  (Nasty Teacher, ICLR 2021)

For forward KL at T = 1 the gradient in f_q(x) is (1−α)q − y + αp (literal): the term cannot
do more than sharpen the outputs. Reverse KL rewards mass where p is tiny and so misleads.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from divqat_brevitas.errors import InputError, unknown_name

Order = Literal["forward", "reverse", "js"]


@dataclass(frozen=True)
class LossSettings:
    """The numbers of the loss.

    Attributes:
        order: "forward" KL(p‖q), "reverse" KL(q‖p) or "js" (Jensen-Shannon).
        temperature: T > 0, divides both logits in the divergence.
        weight: w_div ≥ 0; 0 is plain quantization-aware training, exactly.
        ce_weight: w_ce ≥ 0.
        cap: largest divergence of one image that still counts, in nats; beyond it the image
            gives no gradient, which keeps the maximisation bounded.
        warmup: fraction of training over which the weight rises linearly from 0.
    """

    order: Order = "reverse"
    temperature: float = 4.0
    weight: float = 0.04
    ce_weight: float = 1.0
    cap: float = 3.0
    warmup: float = 0.2

    def __post_init__(self) -> None:
        if self.order not in _DIVERGENCES:
            raise unknown_name("divergence order", str(self.order), _DIVERGENCES)
        if not self.temperature > 0:
            raise InputError(f"temperature={self.temperature}: it must be above 0.")
        for name in ("weight", "ce_weight", "cap"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}={getattr(self, name)}: it must be 0 or more.")
        if not 0 <= self.warmup <= 1:
            raise InputError(f"warmup={self.warmup}: a fraction of training, from 0 to 1.")


PRESETS: dict[str, Callable[[float | None], LossSettings]] = {
    "literal": lambda a: LossSettings("forward", 1.0, _or(a, 0.5), 1.0, cap=10.0),
    "convex": lambda a: LossSettings("forward", 1.0, _or(a, 0.5), 1.0 - _or(a, 0.5), cap=10.0),
    "nasty": lambda a: LossSettings("reverse", 4.0, _or(a, 0.04), 1.0, cap=3.0),
}


def loss_settings(preset: str, weight: float | None = None, **changes: Any) -> LossSettings:
    """The settings of a preset, with the weight (α) or any other field changed.

    Raises:
        InputError: unknown preset or field, with the nearest name; a value out of range.

    Example:
        >>> loss_settings("convex", weight=0.3).ce_weight
        0.7
    """
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    settings = PRESETS[preset](weight)
    for name in changes:
        if name not in LossSettings.__dataclass_fields__:
            raise unknown_name("loss setting", name, LossSettings.__dataclass_fields__)
    return replace(settings, **changes)


class DivQATLoss(nn.Module):
    """Cross-entropy minus a bounded divergence from a frozen reference.

    Args:
        reference: the frozen float network, see ``freeze_reference``.
        preset: "literal", "convex" or "nasty".
        weight: w_div (the paper's α); None takes the preset's.
        **changes: any other field of ``LossSettings``.

    Attributes:
        settings: what was resolved.
        terms: after a call, the parts as detached scalars: "cross_entropy", "divergence"
            (T²·mean, before its weight), "weight" (after warm-up) and "total".
        progress: how far training is, 0 to 1, set by the trainer; drives the warm-up. It is 1
            by default, so a loop that never sets it trains with the full weight.

    Raises:
        InputError: unknown preset or setting; a reference that is not frozen.

    Example:
        >>> from divqat_brevitas import freeze_reference
        >>> net = nn.Linear(4, 3)
        >>> criterion = DivQATLoss(freeze_reference(net), preset="nasty")
        >>> x, y = torch.randn(8, 4), torch.zeros(8, dtype=torch.long)
        >>> loss = criterion(net(x), y, inputs=x)
        >>> sorted(criterion.terms)
        ['cross_entropy', 'divergence', 'total', 'weight']
    """

    def __init__(
        self,
        reference: nn.Module,
        preset: str = "nasty",
        weight: float | None = None,
        **changes: Any,
    ):
        super().__init__()
        if any(p.requires_grad for p in reference.parameters()) or reference.training:
            raise InputError(
                "the reference of DivQATLoss is not frozen: pass freeze_reference(float_model), "
                "so that its weights and batch-norm statistics cannot move."
            )
        self.reference = reference
        self.preset = preset
        self.settings = loss_settings(preset, weight, **changes)
        self.progress = 1.0
        self.terms: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> "DivQATLoss":
        """Switch mode; the reference stays in evaluation mode."""
        super().train(mode)
        self.reference.eval()
        return self

    @property
    def weight(self) -> float:
        """The divergence weight now, after warm-up."""
        s = self.settings
        return s.weight * (min(1.0, self.progress / s.warmup) if s.warmup > 0 else 1.0)

    def scale_weight(self, factor: float) -> None:
        """Multiply the divergence weight, as the accuracy guard does when it backs off."""
        self.settings = replace(self.settings, weight=self.settings.weight * factor)

    def forward(self, logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        """The loss of one batch.

        Args:
            logits: (N, classes) float, of the network in training.
            labels: (N,) int64.
            inputs: (N, …) what produced the logits; the reference sees the same.

        Returns:
            A scalar to call ``backward`` on.
        """
        s, weight = self.settings, self.weight
        ce = F.cross_entropy(logits, labels)
        total = ce if s.ce_weight == 1 else s.ce_weight * ce
        divergence = torch.zeros((), device=logits.device)
        if weight > 0:  # at 0 nothing is added, so plain QAT is reproduced bit for bit
            with torch.no_grad():
                reference = self.reference(inputs)
            each = divergence_per_image(reference, logits, s.order, s.temperature)
            divergence = s.temperature**2 * each.clamp(max=s.cap).mean()
            total = total - weight * divergence
        self.terms = {
            "cross_entropy": ce.detach(),
            "divergence": divergence.detach(),
            "weight": torch.tensor(weight),
            "total": total.detach(),
        }
        return total


def divergence_per_image(
    reference: Tensor, logits: Tensor, order: Order, temperature: float = 1.0
) -> Tensor:
    """Divergence between softened predictions, one value an image, in nats.

    Args:
        reference: (N, classes) logits of the reference.
        logits: (N, classes) logits of the network in training.
        order: "forward" KL(reference‖network), "reverse" KL(network‖reference), "js".
        temperature: divides both logits.

    Returns:
        (N,) float, 0 or more. Both sides stay in log space, so it is finite at any finite logits.

    Example:
        >>> same = torch.randn(2, 3)
        >>> divergence_per_image(same, same, "reverse").abs().max() < 1e-6
        tensor(True)
    """
    p = F.log_softmax(reference.float() / temperature, dim=1)
    q = F.log_softmax(logits.float() / temperature, dim=1)
    return _DIVERGENCES[order](p, q)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum(dim=1)


def _js(p: Tensor, q: Tensor) -> Tensor:
    mean = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0))
    return (_kl(p, mean) + _kl(q, mean)) / 2


_DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forward": _kl,
    "reverse": lambda p, q: _kl(q, p),
    "js": _js,
}


def _or(value: float | None, default: float) -> float:
    return default if value is None else value

"""The DivQAT loss: fit the labels, diverge from the full-precision reference.

A documented reconstruction, since the full text of DivQAT (arXiv 2512.23948) is not
available: its abstract and reviews give cross-entropy plus a Kullback-Leibler term between
the quantized network and its full-precision original, which training *maximises*. Order of
the arguments, temperature and weights are not published; the presets name the choices.

With p = softmax(f(x)/T) of the frozen reference, q = softmax(f_q(x)/T) of the quantized
network and a one-hot label y::

    L = w_ce·CE(f_q(x), y) − w_div·T²·mean_batch(min(D(p, q), cap)) + w_ood·CE(f_q(o), d)

    literal   D = KL(p‖q), T = 1, w_ce = 1,   w_div = α
    convex    D = KL(p‖q), T = 1, w_ce = 1−α, w_div = α
    nasty     D = KL(q‖p), T = 4, w_ce = 1,   w_div = 0.04  (Nasty Teacher, ICLR 2021)
    decoy     w_ce = 1, w_div = 0, w_ood = 0.3: ours, not the paper's
    decoy-photos  as decoy, w_ood = 0.05, o also patches of photographs: ours too
    reject, reject-photos  as these, d an output of its own, w_ood = 0.3: ours too

The last term is an extension of ours: o are synthetic out-of-distribution inputs (see
``outliers``) made from the batch, and d is a fixed distribution with most of its mass on one class,
the reject class. All images of an attacker without in-distribution data then get the same response,
which contains no information; in-distribution images are trained by the cross-entropy only. For
photographs of objects synthetic inputs are not enough: "decoy-photos" takes two of three from a
pool of unlabelled images that the caller gives (outlier exposure, Hendrycks et al., ICLR 2019).

With "reject" the network has one output more than classes, the reject output, and outliers are
trained to that: no class has to be two things, and few in-distribution images go there (a
background class, Hendrycks et al., sec. 5). Its other term is of energy (Liu et al., "Energy-based
Out-of-distribution Detection", NeurIPS 2020, eq. 8): with E = f_K − log Σ exp f_k over the classes
it is mean(max(0, m + E(x))²) + mean(max(0, m − E(o))²). Deviation: the paper has two absolute
margins and no such output; here energy is measured from it, so that the decision is at 0.

For forward KL at T = 1 the gradient in f_q(x) is (1−α)q − y + αp (literal): the term cannot
do more than sharpen the outputs. Reverse KL rewards mass where p is tiny and so misleads.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from divqat_brevitas.errors import CheckedSettings, InputError, OneOf, Within, unknown_name
from divqat_brevitas.inference import as_logits
from divqat_brevitas.quant.outliers import KINDS, recoloured, synthetic_outliers

Order = Literal["forward", "reverse", "js"]
OodTerm = Literal["cross-entropy", "energy"]
ENERGY_MARGIN = 5.0
"""m of the energy term, in nats: a probability of 0.993."""


@dataclass(frozen=True)
class LossSettings(CheckedSettings):
    """The numbers of the loss.

    Attributes:
        order: "forward" KL(p‖q), "reverse" KL(q‖p) or "js" (Jensen-Shannon).
        temperature: T > 0, divides both logits in the divergence.
        weight: w_div ≥ 0; 0 is plain quantization-aware training, exactly.
        ce_weight: w_ce ≥ 0.
        cap: largest divergence of one image that still counts, in nats; beyond it the image
            gives no gradient, which keeps the maximisation bounded.
        warmup: fraction of training over which the weights of the divergence and of the outlier
            term rise linearly from 0.
        ood_weight: w_ood ≥ 0, of the outlier term; 0 leaves it out.
        ood_fraction: outliers for each training image, above 0 and at most 1.
        ood_families: of the synthetic ones: "all", or "textures", without pieces of training
            images.
        ood_pool: name of the query pool whose images the caller gives as ``outliers``; "": none.
        ood_share: fraction of the outliers that is drawn from those.
        decoy_class: the reject class, to which outliers are trained; it costs least where they go
            anyway (``divqat_brevitas.training.find_reject_class``). None: the reject output, one
            more than the reference has (``divqat_brevitas.training.add_reject_output``).
        decoy_mass: its probability in d; the other classes share the rest evenly. Below 1 the
            margin over them is bounded; at 1 it grows, and a response of few levels (a label-only
            fallback, a coarse posterior) then shows only this class.
        ood_term: "cross-entropy" to d, or of a reject output "energy", which has no d.
    """

    order: Annotated[Order, OneOf("divergence order", get_args(Order))] = "reverse"
    temperature: Annotated[float, Within(above=0)] = 4.0
    weight: Annotated[float, Within(low=0)] = 0.04
    ce_weight: Annotated[float, Within(low=0)] = 1.0
    cap: Annotated[float, Within(low=0)] = 3.0
    warmup: Annotated[float, Within(0, 1)] = 0.2
    ood_weight: Annotated[float, Within(low=0)] = 0.0
    ood_fraction: Annotated[float, Within(above=0, high=1)] = 0.5
    ood_families: Annotated[str, OneOf("kind of outliers", KINDS)] = "all"
    ood_pool: str = ""
    ood_share: Annotated[float, Within(above=0, high=1)] = 0.67
    decoy_class: Annotated[int | None, Within(low=0)] = 0
    decoy_mass: Annotated[float, Within(above=0, high=1)] = 1.0
    ood_term: Annotated[OodTerm, OneOf("outlier term", get_args(OodTerm))] = "cross-entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ood_term == "energy" and self.decoy_class is not None:
            raise InputError(
                'ood_term="energy" is of a network with a reject output: take the preset "reject", '
                "or decoy_class=None."
            )

    @property
    def reject_output(self) -> bool:
        """Whether the network has an output more than classes."""
        return self.decoy_class is None

    @property
    def trained_pool(self) -> str:
        """The query pool whose images are trained on; "" where none is, whatever it names."""
        return self.ood_pool if self.ood_weight > 0 else ""


PRESETS: dict[str, Callable[[float | None], LossSettings]] = {
    "literal": lambda a: LossSettings("forward", 1.0, _or(a, 0.5), 1.0, cap=10.0),
    "convex": lambda a: LossSettings("forward", 1.0, _or(a, 0.5), 1.0 - _or(a, 0.5), cap=10.0),
    "nasty": lambda a: LossSettings("reverse", 4.0, _or(a, 0.04), 1.0, cap=3.0),
    "decoy": lambda a: LossSettings("reverse", 4.0, _or(a, 0.0), 1.0, cap=3.0, ood_weight=0.3),
    "decoy-photos": lambda a: LossSettings(
        "reverse",
        4.0,
        _or(a, 0.0),
        1.0,
        cap=3.0,
        ood_weight=0.05,
        ood_fraction=0.25,
        ood_families="textures",
        ood_pool="backgrounds",
    ),
    "reject": lambda a: replace(PRESETS["decoy"](a), decoy_class=None),
    "reject-photos": lambda a: replace(
        PRESETS["decoy-photos"](a), ood_weight=0.3, ood_fraction=0.5, decoy_class=None
    ),
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
        preset: a key of ``PRESETS``: "literal", "convex", "nasty", "decoy", "reject", ...
        weight: w_div (the paper's α); None takes the preset's.
        outliers: (M, C, H, W) uint8, images of another kind, unlabelled, at least one; drawn at
            random beside the synthetic ones. Never those that a defence is tested with.
        **changes: any other field of ``LossSettings``.

    Attributes:
        settings: what was resolved.
        terms: after a call, the parts as detached scalars: "cross_entropy", "divergence"
            (T²·mean, before its weight), "weight" (after warm-up) and "total"; where outliers
            were given, "reject" (before its weight).
        progress: how far training is, 0 to 1, set by the trainer; drives the warm-up. It is 1
            by default, so a loop that never sets it trains with the full weight.

    Raises:
        InputError: unknown preset or setting; a reference that is not frozen; a preset with a
            pool of outliers and none given.

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
        *,
        outliers: Tensor | None = None,
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
        self._own = _checked(outliers, self.settings)
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
        return self.settings.weight * self._warm

    @property
    def ood_weight(self) -> float:
        """The current weight of the outlier term, with warm-up."""
        return self.settings.ood_weight * self._warm

    @property
    def _warm(self) -> float:
        warmup = self.settings.warmup
        return min(1.0, self.progress / warmup) if warmup > 0 else 1.0

    def scale_weight(self, factor: float) -> None:
        """Multiply the weights of divergence and outlier term, as the accuracy guard does."""
        s = self.settings
        self.settings = replace(s, weight=s.weight * factor, ood_weight=s.ood_weight * factor)

    def with_outliers(self, inputs: Tensor, generator: Generator | None = None) -> Tensor:
        """``inputs`` with synthetic and given outliers, where the outlier term has a weight.

        Give the network the whole: one batch, so that batch normalisation sees both. Then call
        the loss with its logits, the labels of only the images, and the whole as ``inputs``.

        Args:
            inputs: (N, C, H, W) float in [0, 1], a training batch.
            generator: of the outliers, on the CPU; None: torch's global one decides its seed.

        Returns:
            (N + round(N·ood_fraction), C, H, W), or ``inputs`` itself.
        """
        count = round(len(inputs) * self.settings.ood_fraction)
        if self.settings.ood_weight == 0 or count == 0:
            return inputs
        if generator is None:
            generator = Generator().manual_seed(int(torch.randint(2**62, ())))
        drawn = 0 if self._own is None else round(count * self.settings.ood_share)
        parts = [inputs]
        if drawn < count:
            made = inputs[: count - drawn]
            parts.append(synthetic_outliers(made, generator, self.settings.ood_families))
        if self._own is not None and drawn:
            if self._own.shape[1:] != inputs.shape[1:]:
                raise InputError(
                    f"outliers of shape {tuple(self._own.shape[1:])} for images of shape "
                    f"{tuple(inputs.shape[1:])}: give some of the same."
                )
            chosen = self._own[torch.randint(len(self._own), (drawn,), generator=generator)]
            given = chosen.to(inputs) / 255
            parts.append(recoloured(given, generator))
        return torch.cat(parts)

    def forward(self, logits: Any, labels: Tensor, inputs: Tensor) -> Tensor:
        """The loss of one batch.

        Args:
            logits: (N, classes) float, of the network in training; or (N + M, classes) with
                those of M outliers behind. A ``QuantTensor`` and other forms are taken as
                :func:`divqat_brevitas.inference.as_logits` says.
            labels: (N,) int64.
            inputs: (N, …) or (N + M, …), a row for each of the logits; the reference sees the
                first N.

        Returns:
            A scalar to call ``backward`` on.

        Raises:
            InputError: outputs that hold no logits for the inputs, fewer logits than labels, or a
                reject class that the network does not have.
        """
        count = len(labels)
        logits = as_logits(logits, len(inputs), "the network in training")
        if len(logits) < count:
            raise InputError(f"{len(logits)} rows of logits cannot have {count} labels.")
        s, weight = self.settings, self.weight
        outliers, logits, inputs = logits[count:], logits[:count], inputs[:count]
        ce = F.cross_entropy(logits, labels)
        total = ce if s.ce_weight == 1 else s.ce_weight * ce
        divergence = torch.zeros((), device=logits.device)
        if weight > 0:  # at 0 nothing is added, so plain QAT is reproduced bit for bit
            with torch.no_grad():
                reference = as_logits(self.reference(inputs), count, "the reference")
            shared = logits[:, : reference.shape[1]]  # a reject output is no class
            each = divergence_per_image(reference, shared, s.order, s.temperature)
            divergence = s.temperature**2 * each.clamp(max=s.cap).mean()
            total = total - weight * divergence
        self.terms = {
            "cross_entropy": ce.detach(),
            "divergence": divergence.detach(),
            "weight": torch.tensor(weight),
        }
        if len(outliers):
            if s.ood_term == "energy":
                rejected = energy_loss(logits, outliers)
            else:
                last = logits.shape[1] - 1
                to = last if s.decoy_class is None else s.decoy_class
                rejected = reject_loss(outliers, to, s.decoy_mass)
            total = total + self.ood_weight * rejected
            self.terms["reject"] = rejected.detach()
        self.terms["total"] = total.detach()
        return total


def reject_loss(logits: Tensor, decoy_class: int, mass: float) -> Tensor:
    """Mean cross-entropy of (M, classes) logits to the distribution d, a scalar.

    Raises:
        InputError: the network has no such class.
    """
    classes = logits.shape[1]
    if not 0 <= decoy_class < classes:
        raise InputError(
            f"decoy_class={decoy_class}: the network has classes 0 to {classes - 1}. Set one of "
            "these."
        )
    log_q = F.log_softmax(logits.float(), dim=1)
    target = torch.full_like(log_q[0], (1 - mass) / (classes - 1))
    target[decoy_class] = mass
    return -(log_q @ target).mean()


def energy_loss(logits: Tensor, outliers: Tensor) -> Tensor:
    """The energy term of images' and outliers' logits (N, K + 1), (M, K + 1), a scalar.

    Example:
        >>> sure = torch.tensor([[9.0, 0.0, 0.0]])
        >>> energy_loss(sure, sure.flip(1)).item()
        0.0
    """
    inside, outside = (
        x[:, -1] - torch.logsumexp(x[:, :-1], dim=1) for x in (logits.float(), outliers.float())
    )
    costs: Tensor = F.relu(ENERGY_MARGIN + inside).square().mean()
    return costs + F.relu(ENERGY_MARGIN - outside).square().mean()


def divergence_per_image(
    reference: Tensor, logits: Tensor, order: Order, temperature: float = 1.0
) -> Tensor:
    """Divergence of softened (N, classes) logits, one value an image, in nats: (N,), 0 or more.

    "forward" is KL(reference‖network), "reverse" KL(network‖reference), "js" Jensen-Shannon. Both
    sides stay in log space, so it is finite at any finite logits.

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


def _checked(outliers: Tensor | None, settings: LossSettings) -> Tensor | None:
    if outliers is None:
        if settings.trained_pool:
            raise InputError(
                f"the loss takes outliers from the pool {settings.trained_pool!r} and was given "
                "none. Pass outliers=… with uint8 images of another kind, or ood_pool=''."
            )
    elif outliers.dtype != torch.uint8 or outliers.dim() != 4 or not len(outliers):
        raise InputError(
            f"outliers of type {outliers.dtype} and shape {tuple(outliers.shape)}: they must be "
            "uint8 (M, C, H, W), at least one."
        )
    return outliers


def _or(value: float | None, default: float) -> float:
    return default if value is None else value

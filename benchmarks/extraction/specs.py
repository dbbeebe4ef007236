"""Specifications of victims and experiments: plain data with a readable name and a key.

The name is for people and files. The key is a hash of everything that the result depends on: a
result with another key was computed from other settings, and is computed again.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from divqat_brevitas.data.pools import check_unseen
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.attack_spec import AttackSpec
from divqat_brevitas.files import sha256_text
from divqat_brevitas.quant.loss import LossSettings, loss_settings

REVISION = 1
"""Raised when the same settings shall give other results: every committed experiment is stale."""
_DIVQAT = "divqat-"
Changes = tuple[tuple[str, int | float | str], ...]
"""Changed settings of a loss preset, as (name, value) pairs."""


@dataclass(frozen=True, kw_only=True)
class VictimSpec:
    """One trained network.

    Attributes:
        dataset: registry name, or some of its classes, such as "cifar10:0-4".
        model: a key of ``divqat_brevitas.models.MODELS``.
        bits: such as "w4a4"; a float victim's are "float32".
        variant: "float", "qat", or "divqat-" and a preset of the loss.
        changes: changed settings of the preset.
        guard: accuracy (fraction of 1) that it may lose on validation data against its plain-QAT
            twin.
        seed: of the weights, the order of images and the augmentation.
        float_epochs: epochs of the float reference's training.
        quant_epochs: epochs of the quantization-aware training that starts from the reference.
        batch_size: images in a training step.
        learning_rate: of the float training.
        quant_learning_rate: of the quantized training.
        augment: "none", "shift" or "flip-shift".
        precision: of the training, "float32" or "bfloat16".
        decoy_cost: accuracy (fraction of 1) below its twin's at which a decoy is balanced after
            training, on validation data (``training.balance_reject_class``); None: it is left as it
            is.
        shape: images are fitted to this (C, H, W); None leaves them as they are. An attacker's
            shadow victim takes the images of the victim under attack.
    """

    dataset: str
    model: str
    bits: str = "w4a4"
    variant: str = "qat"
    changes: Changes = ()
    guard: float = 0.02
    seed: int = 0
    float_epochs: int = 10
    quant_epochs: int = 5
    batch_size: int = 128
    learning_rate: float = 0.05
    quant_learning_rate: float = 0.01
    augment: str = "none"
    precision: str = "float32"
    decoy_cost: float | None = None
    shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.variant not in ("float", "qat") and not self.variant.startswith(_DIVQAT):
            raise InputError(
                f"a victim is 'float', 'qat' or 'divqat-<preset>', but not {self.variant!r}."
            )
        if self.variant.startswith(_DIVQAT):
            _loss(self)

    @property
    def preset(self) -> str:
        """The loss preset of a divqat victim."""
        return self.variant.removeprefix(_DIVQAT)

    @property
    def loss(self) -> LossSettings | None:
        """The loss of a divqat victim; None of another."""
        return _loss(self) if self.variant.startswith(_DIVQAT) else None

    @property
    def balanced(self) -> float | None:
        """``decoy_cost`` of a victim that has a decoy."""
        loss = self.loss
        return self.decoy_cost if loss is not None and loss.ood_weight > 0 else None

    @property
    def label(self) -> str:
        """The variant with what it changes of its preset, as results call it."""
        return "-".join([self.variant, *(f"{name}{value}" for name, value in self.changes)])

    @property
    def engine(self) -> str:
        """What answers for it: torch for a float network, else the integer engine."""
        return "torch" if self.variant == "float" else "integer"

    @property
    def name(self) -> str:
        """Readable, and safe as a file's name."""
        bits = "float32" if self.variant == "float" else self.bits
        parts = [self.dataset, self.model, bits, self.label, f"v{self.seed}"]
        if self.shape is not None:
            parts.append("x".join(map(str, self.shape)))
        return file_name(".".join(parts))

    @property
    def reference(self) -> "VictimSpec":
        """The float network it is trained from."""
        return replace(self, variant="float", changes=())

    @property
    def twin(self) -> "VictimSpec":
        """The plain-QAT network that its accuracy is compared with."""
        return replace(self, variant="qat", changes=())

    @property
    def needs(self) -> tuple["VictimSpec", ...]:
        """The victims it is made from, in order."""
        match self.variant:
            case "float":
                return ()
            case "qat":
                return (self.reference,)
            case _:
                return (self.reference, self.twin)

    @property
    def key(self) -> str:
        """SHA-256 of everything its weights depend on."""
        about: dict[str, Any] = asdict(self) | {"decoy_cost": self.balanced, "loss": None}
        if self.variant == "float":
            for name in ("bits", "quant_epochs", "quant_learning_rate"):
                del about[name]
        if self.loss is None:
            del about["guard"]
        else:
            # A preset whose numbers change is another victim; the default term is as none named.
            about["loss"] = asdict(self.loss)
            if self.loss.ood_term == "cross-entropy":
                del about["loss"]["ood_term"]
        return _digest(about)


@dataclass(frozen=True, kw_only=True)
class ExperimentSpec:
    """One experiment: a victim and what is done to it."""

    victim: VictimSpec
    attack: AttackSpec

    def __post_init__(self) -> None:
        if self.attack.answer != "logits" and self.victim.variant == "float":
            raise InputError(
                f"the answer {self.attack.answer!r} is of a chip, and a float victim has none."
            )
        loss = self.victim.loss
        if loss is not None and loss.trained_pool:
            check_unseen(loss.trained_pool, self.attack.pool)

    @property
    def label(self) -> str:
        """The victim as results call it: with what its chip answers, if not logits."""
        answer = self.attack.answer
        return self.victim.label if answer == "logits" else f"{self.victim.label}+{answer}"

    @property
    def configuration(self) -> str:
        """The name without its seeds: experiments that share it repeat one measurement."""
        v, t = self.victim, self.attack
        who = f"{v.dataset}.{v.model}-{v.bits}.{self.label}"
        how = f"{t.oracle}.{t.defence}.{t.attack}.{t.learner}.{t.surrogate}.{t.pool}.{t.budget}"
        return file_name(f"{who}.{how}")

    @property
    def name(self) -> str:
        """Readable, and safe as a file's name."""
        return f"{self.configuration}.v{self.victim.seed}s{self.attack.seed}"

    @property
    def key(self) -> str:
        """SHA-256 of everything its result depends on."""
        return _digest({"victim": self.victim.key, "attack": asdict(self.attack)})

    def seeded(self, victim: int, attack: int) -> "ExperimentSpec":
        """The same with other seeds."""
        return ExperimentSpec(
            victim=replace(self.victim, seed=victim), attack=replace(self.attack, seed=attack)
        )


def file_name(text: str) -> str:
    """``text`` with what a file name cannot hold replaced.

    Example:
        >>> file_name("cifar10:0-4.qat")
        'cifar10_0-4.qat'
    """
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.@") else "_" for c in text)


def _loss(spec: VictimSpec) -> LossSettings:
    return loss_settings(spec.preset, **dict[str, Any](spec.changes))


def _digest(about: dict[str, Any]) -> str:
    return sha256_text(json.dumps([REVISION, about], sort_keys=True))

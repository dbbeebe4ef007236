"""The learners by name, as settings and benchmarks ask for them.

A name is the name of training targets ("argmax", "temperature:4"), of a learner ("skeptical",
"tuned"), or of a learner before another one: "filtered-argmax" filters, then trains on labels.
"filtered" stands before "soft". The field "treatment" of results holds the same name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.extraction.defences.base import Defence
from divqat_brevitas.extraction.learners.base import Learner, PlainLearner, TransferSet
from divqat_brevitas.extraction.learners.filtered import AugmentedLearner, FilteredLearner
from divqat_brevitas.extraction.learners.labelled import LabelledLearner
from divqat_brevitas.extraction.learners.prior import CorrectedLearner
from divqat_brevitas.extraction.learners.recovery import (
    PartialBayes,
    PriorRecoveryLearner,
    Recovery,
    RecoveryLearner,
    ShadowPairs,
)
from divqat_brevitas.extraction.learners.skeptical import SkepticalLearner
from divqat_brevitas.extraction.learners.targets import TARGETS, target_function
from divqat_brevitas.extraction.learners.tuned import TunedLearner
from divqat_brevitas.extraction.learners.unlabelled import ConsistentLearner, PretrainedLearner
from divqat_brevitas.extraction.surrogates.training import SurrogateTraining


@dataclass(frozen=True)
class _Recipe:
    surrogate: str
    epochs: int
    training: SurrogateTraining
    shadow: ShadowPairs | None
    seed: int
    remember: Path | None = None
    labelled: TransferSet | None = None
    known: Defence | None = None
    oracle: str = "soft"

    def plain(self, targets: str = "soft") -> PlainLearner:
        return PlainLearner(
            surrogate=self.surrogate,
            targets=targets,
            epochs=self.epochs,
            training=self.training,
            remember=self.remember,
        )

    def pairs(self, name: str) -> ShadowPairs:
        if self.shadow is None:
            raise InputError(
                f"learner {name!r} needs shadow pairs: responses of the attacker's own networks "
                "with and without the defence. Make them with ShadowPairs and pass shadow=."
            )
        return self.shadow


@dataclass(frozen=True)
class LearnerEntry:
    """One learner.

    Attributes:
        aim: the defence that it is aimed at.
        make: builds it from a recipe and the learner that comes after it.
        wraps: which learners it may stand before: "any", "plain" or "none".
        needs_shadow: whether it needs shadow pairs.
        needs_labelled: whether it needs labelled images.
    """

    aim: str
    make: Callable[[_Recipe, Learner], Learner]
    wraps: str = "none"
    needs_shadow: bool = False
    needs_labelled: bool = False


def _plain_of(learner: Learner) -> PlainLearner:
    if not isinstance(learner, PlainLearner):
        raise InputError(
            f"no learner can be pretrained or made consistent before {learner.name!r}: name "
            "training targets after it, such as 'pretrained-argmax'."
        )
    return learner


def _recovery(recipe: _Recipe, base: Learner) -> Learner:
    pairs = recipe.pairs("recovery")
    recovery = Recovery.fit(pairs.defended, pairs.undefended, recipe.seed)
    return RecoveryLearner(recovery=recovery, base=base)


def _labelled(recipe: _Recipe, base: Learner) -> Learner:
    if recipe.labelled is None:
        raise InputError(
            "learner 'labelled' needs labelled images of the attacker's own: pass labelled=, a "
            "TransferSet of images with one-hot responses."
        )
    return LabelledLearner(labelled=recipe.labelled, base=base)


def _bayes(recipe: _Recipe, base: Learner) -> Learner:
    return RecoveryLearner(recovery=PartialBayes(recipe.pairs("bayes")), base=base)


def _prior(recipe: _Recipe, base: Learner, bayes: bool) -> Learner:
    if recipe.known is None:
        name = "pbayes" if bayes else "ddae+"
        raise InputError(f"learner {name!r} needs the defence that it undoes: pass known=.")
    return PriorRecoveryLearner(known=recipe.known, oracle=recipe.oracle, bayes=bayes, base=base)


_TARGET_AIMS = {
    "soft": "no defence",
    "argmax": "poisoned probabilities under right labels",
    "smooth": "poisoned probabilities, few responses",
    "temperature": "sharpened (T above 1) or flattened (T below 1) probabilities",
    "topk": "a poisoned tail under right first classes",
    "drop-top": "a confident wrong class laid over the true response",
    "second": "a confident wrong class over the true label",
    "centred": "a constant out-of-distribution target trained into the weights",
}

LEARNERS: dict[str, LearnerEntry] = {
    **{name: LearnerEntry(_TARGET_AIMS[name], lambda recipe, base: base) for name in TARGETS},
    "filtered": LearnerEntry(
        "one class, or one confident profile, for out-of-distribution queries",
        lambda recipe, base: FilteredLearner(base=base),
        wraps="any",
    ),
    "unmasked": LearnerEntry(
        "a confident out-of-distribution target, mixed with the true response",
        lambda recipe, base: FilteredLearner(base=base, unmask=True),
        wraps="any",
    ),
    "shifted": LearnerEntry(
        "none: a stronger clone; noise among the labels is not learned by heart",
        lambda recipe, base: AugmentedLearner(base=base),
        wraps="any",
    ),
    "mirrored": LearnerEntry(
        "none: as shifted, for natural images",
        lambda recipe, base: AugmentedLearner(base=base, flip=True),
        wraps="any",
    ),
    "corrected": LearnerEntry(
        "one class for many queries; unbalanced query pools",
        lambda recipe, base: CorrectedLearner(base=base),
        wraps="any",
    ),
    "corrected:tuned": LearnerEntry(
        "one class for many queries; unbalanced query pools",
        lambda recipe, base: CorrectedLearner(base=base, tau=None),
        wraps="any",
    ),
    "skeptical": LearnerEntry(
        "weights trained to be undistillable: Nasty Teacher, DivQAT",
        lambda recipe, base: SkepticalLearner(
            surrogate=recipe.surrogate, epochs=recipe.epochs, training=recipe.training
        ),
    ),
    "recovery": LearnerEntry(
        "a known perturbation of probabilities", _recovery, wraps="any", needs_shadow=True
    ),
    "bayes": LearnerEntry(
        "a known perturbation that maps many responses to one, such as rounding",
        _bayes,
        wraps="any",
        needs_shadow=True,
    ),
    "ddae+": LearnerEntry(
        "a known perturbation of probabilities, without shadow networks",
        lambda recipe, base: _prior(recipe, base, bayes=False),
        wraps="any",
    ),
    "pbayes": LearnerEntry(
        "a known perturbation that maps many responses to one, without shadow networks",
        lambda recipe, base: _prior(recipe, base, bayes=True),
        wraps="any",
    ),
    "labelled": LearnerEntry(
        "wrong labels by a rule, such as permuted classes",
        _labelled,
        wraps="any",
        needs_labelled=True,
    ),
    "pretrained": LearnerEntry(
        "small budgets, and defences that leave few responses worth having",
        lambda recipe, base: PretrainedLearner(base=_plain_of(base)),
        wraps="plain",
    ),
    "consistent": LearnerEntry(
        "wrong labels for some queries, whichever",
        lambda recipe, base: ConsistentLearner(base=_plain_of(base)),
        wraps="plain",
    ),
    "tuned": LearnerEntry(
        "any that hinders training with default hyper-parameters",
        lambda recipe, base: TunedLearner(base=recipe.plain()),
    ),
}


def make_learner(
    name: str,
    surrogate: str = "vgg-small",
    epochs: int = 20,
    training: SurrogateTraining | None = None,
    *,
    shadow: ShadowPairs | None = None,
    seed: int = 0,
    remember: Path | None = None,
    labelled: TransferSet | None = None,
    known: Defence | None = None,
    oracle: str = "soft",
) -> Learner:
    """The learner called ``name``.

    Args:
        name: see the module; the learner has the same name.
        surrogate: the clone's network, see :func:`build_surrogate`.
        epochs: number of epochs of the clone's training.
        training: settings of the training.
        shadow: pairs that "recovery" and "bayes" are fitted on.
        seed: of that fit.
        remember: folder of trained clones, see :class:`PlainLearner`.
        labelled: images of the attacker's own for "labelled", with one-hot responses.
        known: the defence that "ddae+" and "pbayes" undo, an object of the attacker's own.
        oracle: how the victim shows responses, for "ddae+" and "pbayes".

    Raises:
        InputError: unknown name, a combination that does not exist, or shadow pairs, labelled
            images or the defence missing.

    Example:
        >>> make_learner("filtered-argmax", surrogate="compact").name
        'filtered-argmax'
    """
    recipe = _Recipe(
        *(surrogate, epochs, training or SurrogateTraining(), shadow, seed, remember),
        *(labelled, known, oracle),
    )
    return _make(name, recipe, name)


def _make(name: str, recipe: _Recipe, whole: str) -> Learner:
    if name.partition(":")[0] in TARGETS:
        target_function(name)
        return recipe.plain(name)
    for first, entry in LEARNERS.items():
        if name == first:
            return entry.make(recipe, recipe.plain())
        if entry.wraps != "none" and name.startswith(f"{first}-"):
            return entry.make(recipe, _make(name[len(first) + 1 :], recipe, whole))
    raise unknown_name("learner", whole, LEARNERS)


def strongest_learners(shadow: bool = False, known: bool = False) -> dict[str, str]:
    """Learners to try against a new defence, with the defences that each is aimed at.

    With ``shadow`` or ``known`` also those that need shadow pairs or the known defence.

    The order is by cost and usual success: first labels only, which cost nothing and break most
    published defences. "soft" is included because a defence may make the others worse. The worst
    case is the best of all of them.

    Example:
        >>> list(strongest_learners())[:2]
        ['argmax', 'centred']
    """
    names = ["argmax", "centred", "corrected", "corrected-centred", "corrected-argmax"]
    names += ["filtered", "filtered-argmax", "skeptical"]
    names += ["recovery", "bayes"] if shadow else []
    names += ["ddae+", "pbayes"] if known else []
    names += ["temperature:2", "drop-top", "unmasked", "consistent", "smooth", "shifted", "soft"]
    names += ["pretrained", "pretrained-argmax", "corrected:tuned", "tuned"]
    return {name: _aim(name) for name in names}


def _aim(name: str) -> str:
    base = name.partition(":")[0]
    if base in LEARNERS:
        return LEARNERS[base].aim
    first, _, rest = name.partition("-")
    return f"{LEARNERS[first].aim}; {_aim(rest)}"

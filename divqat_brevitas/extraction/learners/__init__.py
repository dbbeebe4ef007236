"""Learners: how an attacker trains a clone on responses, also one that knows the defence."""

from divqat_brevitas.extraction.learners.augmented import AugmentedLearner
from divqat_brevitas.extraction.learners.catalogue import (
    LEARNERS,
    LearnerEntry,
    make_learner,
    strongest_learners,
)
from divqat_brevitas.extraction.learners.consistent import ConsistentLearner
from divqat_brevitas.extraction.learners.filtered import FilteredLearner, find_ood_targets
from divqat_brevitas.extraction.learners.pretrained import PretrainedLearner
from divqat_brevitas.extraction.learners.recovery import (
    PartialBayes,
    Recovery,
    RecoveryLearner,
    ResponseRecovery,
)
from divqat_brevitas.extraction.learners.shadow import ShadowPairs
from divqat_brevitas.extraction.learners.skeptical import SkepticalLearner
from divqat_brevitas.extraction.learners.tuned import TunedLearner

__all__ = [
    "LEARNERS",
    "AugmentedLearner",
    "ConsistentLearner",
    "FilteredLearner",
    "LearnerEntry",
    "PartialBayes",
    "PretrainedLearner",
    "Recovery",
    "RecoveryLearner",
    "ResponseRecovery",
    "ShadowPairs",
    "SkepticalLearner",
    "TunedLearner",
    "find_ood_targets",
    "make_learner",
    "strongest_learners",
]

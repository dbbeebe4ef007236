"""Model extraction: a victim behind an oracle, attacks, learners, defences, and their evaluation.

Works on anything with ``predict(images) -> logits`` and on torch modules; NumPy at the border.

Example:
    >>> from torch import nn
    >>> import numpy as np
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> pool = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), np.uint8)
    >>> victim = Victim(model, oracle="soft", budget=50)
    >>> result = KnockoffNets(surrogate="mlp", seed=0, epochs=2).run(victim, pool)
    >>> result.queries_used, victim.remaining
    (50, 0)
    >>> 0 <= agreement(result.clone, model, pool) <= 1
    True
"""

from divqat_brevitas.extraction.attack_spec import (
    AttackOutcome,
    AttackSpec,
    QuerySet,
    draw_queries,
    run_attack,
)
from divqat_brevitas.extraction.attacks.active import ActiveThief
from divqat_brevitas.extraction.attacks.adaptive import AdaptiveSampling
from divqat_brevitas.extraction.attacks.avoiding import RejectionAvoider
from divqat_brevitas.extraction.attacks.base import Attack, Result, Substitute
from divqat_brevitas.extraction.attacks.catalogue import ATTACKS, make_attack
from divqat_brevitas.extraction.attacks.dfme import DFME
from divqat_brevitas.extraction.attacks.disguide import DFMSHL, DisGUIDE
from divqat_brevitas.extraction.attacks.jacobian import JacobianAugmentation
from divqat_brevitas.extraction.attacks.knockoff import AveragedQueries, CopycatCNN, KnockoffNets
from divqat_brevitas.extraction.attacks.semi import MixMatch, SemiSupervised
from divqat_brevitas.extraction.attacks.stable import StableQueries
from divqat_brevitas.extraction.evaluation.metrics import (
    accuracy,
    agreement,
    ece,
    flips_from_reference,
    l1_to_reference,
    nll,
    ood_auroc,
)
from divqat_brevitas.extraction.evaluation.records import AttackRow
from divqat_brevitas.extraction.evaluation.summary import SummaryRow, summarize
from divqat_brevitas.extraction.evaluation.utility import (
    UtilityRow,
    adversarial_examples,
    utility_row,
)
from divqat_brevitas.extraction.learners.base import (
    Learner,
    PlainLearner,
    TrainedClone,
    TransferSet,
)
from divqat_brevitas.extraction.learners.catalogue import LEARNERS, make_learner, strongest_learners
from divqat_brevitas.extraction.learners.recovery import ShadowPairs
from divqat_brevitas.extraction.learners.targets import TARGETS
from divqat_brevitas.extraction.oracles import ORACLES, make_oracle, softmax
from divqat_brevitas.extraction.predictor import Predictor, TorchPredictor, as_predictor
from divqat_brevitas.extraction.surrogates.networks import SURROGATES, build_surrogate
from divqat_brevitas.extraction.surrogates.training import SurrogateTraining, train_surrogate
from divqat_brevitas.extraction.victim import BudgetExceededError, LedgerRow, Victim

__all__ = [
    "ATTACKS",
    "DFME",
    "DFMSHL",
    "LEARNERS",
    "ORACLES",
    "SURROGATES",
    "TARGETS",
    "ActiveThief",
    "AdaptiveSampling",
    "Attack",
    "AttackOutcome",
    "AttackRow",
    "AttackSpec",
    "AveragedQueries",
    "BudgetExceededError",
    "CopycatCNN",
    "DisGUIDE",
    "JacobianAugmentation",
    "KnockoffNets",
    "Learner",
    "LedgerRow",
    "MixMatch",
    "PlainLearner",
    "Predictor",
    "QuerySet",
    "RejectionAvoider",
    "Result",
    "SemiSupervised",
    "ShadowPairs",
    "StableQueries",
    "Substitute",
    "SummaryRow",
    "SurrogateTraining",
    "TorchPredictor",
    "TrainedClone",
    "TransferSet",
    "UtilityRow",
    "Victim",
    "accuracy",
    "adversarial_examples",
    "agreement",
    "as_predictor",
    "build_surrogate",
    "draw_queries",
    "ece",
    "flips_from_reference",
    "l1_to_reference",
    "make_attack",
    "make_learner",
    "make_oracle",
    "nll",
    "ood_auroc",
    "run_attack",
    "softmax",
    "strongest_learners",
    "summarize",
    "train_surrogate",
    "utility_row",
]

"""The attacks by name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from divqat_brevitas.errors import unknown_name
from divqat_brevitas.extraction.attacks.active import ActiveThief
from divqat_brevitas.extraction.attacks.avoiding import RejectionAvoider
from divqat_brevitas.extraction.attacks.base import Attack, Substitute
from divqat_brevitas.extraction.attacks.dfme import DFME
from divqat_brevitas.extraction.attacks.disguide import DFMSHL, DisGUIDE
from divqat_brevitas.extraction.attacks.jacobian import JacobianAugmentation
from divqat_brevitas.extraction.attacks.knockoff import AveragedQueries, CopycatCNN, KnockoffNets
from divqat_brevitas.extraction.attacks.semi import SemiSupervised
from divqat_brevitas.extraction.attacks.stable import StableQueries
from divqat_brevitas.extraction.learners.base import Learner
from divqat_brevitas.plugins import Registry

StartsFrom = Literal["pool", "seeds", "free"]


@dataclass(frozen=True)
class AttackEntry:
    """One attack.

    Attributes:
        make: makes the attack from a learner and a seed.
        starts_from: what the attacker starts from: a pool of images ("pool"), a few seed images
            from which it makes more ("seeds"), or no images ("free").
        source: the paper.
    """

    make: Callable[[Learner, int], Attack]
    starts_from: StartsFrom
    source: str


def _beside(attack: Callable[..., Attack], **settings: str) -> Callable[[Learner, int], Attack]:
    """An attack with a substitute that is trained in the learner's precision."""
    return lambda learner, seed: attack(
        learner, seed, substitute=Substitute.beside(learner), **settings
    )


_BUILT_IN: dict[str, AttackEntry] = {
    "knockoff-random": AttackEntry(KnockoffNets, "pool", "Orekondy et al., CVPR 2019"),
    "knockoff-adaptive": AttackEntry(
        partial(KnockoffNets, strategy="adaptive"), "pool", "Orekondy et al., CVPR 2019"
    ),
    "knockoff-averaged": AttackEntry(
        AveragedQueries,
        "pool",
        "Orekondy et al., CVPR 2019; each image in three versions, responses averaged",
    ),
    "knockoff-stable": AttackEntry(
        StableQueries,
        "pool",
        "Tramèr et al., NeurIPS 2020; images with one label under shift and brightness",
    ),
    "knockoff-stable-mirrored": AttackEntry(
        partial(StableQueries, flip=True),
        "pool",
        "Tramèr et al., NeurIPS 2020; as knockoff-stable, mirrored too, for natural images",
    ),
    "copycat": AttackEntry(CopycatCNN, "pool", "Correia-Silva et al., IJCNN 2018"),
    "jbda": AttackEntry(
        _beside(JacobianAugmentation, method="jbda"), "seeds", "Papernot et al., ASIACCS 2017"
    ),
    "jbtr": AttackEntry(
        _beside(JacobianAugmentation, method="jbtr"), "seeds", "Juuti et al., EuroS&P 2019"
    ),
    "active-kcenter": AttackEntry(
        _beside(ActiveThief, selection="k-center"), "pool", "Pal et al., AAAI 2020"
    ),
    "active-entropy": AttackEntry(
        _beside(ActiveThief, selection="entropy"), "pool", "Pal et al., AAAI 2020"
    ),
    "active-dfal+kcenter": AttackEntry(
        _beside(ActiveThief, selection="dfal+k-center"), "pool", "Pal et al., AAAI 2020"
    ),
    "avoiding": AttackEntry(
        _beside(RejectionAvoider),
        "pool",
        "Tramèr et al., NeurIPS 2020; Pal et al., AAAI 2020; images that are not rejected",
    ),
    "semi-supervised": AttackEntry(
        SemiSupervised,
        "pool",
        "Jagielski et al., USENIX Security 2020; MixMatch: Berthelot et al., NeurIPS 2019",
    ),
    "dfme": AttackEntry(DFME, "free", "Truong et al., CVPR 2021"),
    "disguide": AttackEntry(DisGUIDE, "free", "Rosenthal et al., AAAI 2023"),
    "dfms-hl": AttackEntry(DFMSHL, "free", "Sanyal et al., CVPR 2022"),
}

ATTACKS: Registry[AttackEntry] = Registry(
    "attack",
    "divqat.attacks",
    _BUILT_IN,
    fits=lambda found: isinstance(found, AttackEntry),
    expected="an AttackEntry of divqat_brevitas.extraction.attacks.catalogue",
)
"""All attacks by name: these, and those of installed packages."""


def make_attack(name: str, learner: Learner, seed: int = 0) -> Attack:
    """The attack called ``name``, with its published settings scaled to small budgets.

    Raises:
        InputError: unknown attack, or a plug-in that cannot be loaded.

    Example:
        >>> from divqat_brevitas.extraction import PlainLearner
        >>> make_attack("knockoff-random", PlainLearner()).name
        'knockoff-random'
    """
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    return ATTACKS[name].make(learner, seed)

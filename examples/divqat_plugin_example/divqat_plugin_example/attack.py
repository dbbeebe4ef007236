"""An attack: every answer counts for the image and for its mirror image, at one query."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from divqat_brevitas.extraction.arrays import substream
from divqat_brevitas.extraction.attacks.base import Result, ask, deliver, met
from divqat_brevitas.extraction.attacks.catalogue import AttackEntry
from divqat_brevitas.extraction.attacks.pools import plan
from divqat_brevitas.extraction.learners.base import Learner, TransferSet
from divqat_brevitas.extraction.query.victim import Victim


@dataclass(frozen=True)
class Mirrored:
    """KnockoffNets' random strategy, with each answered image mirrored left to right as well.

    It pays where a mirror image is of the same class: clothes, animals; not digits.

    Args:
        learner: makes the clone.
        seed: of everything random in the attack.
    """

    learner: Learner
    seed: int = 0

    @property
    def name(self) -> str:
        """What results call it."""
        return "mirrored"

    def run(self, victim: Victim, pool: Any, budget: int | None = None) -> Result:
        """Ask random images of the pool, and train a clone on twice as many."""
        given = plan(victim, pool, budget)  # checks pool and budget before anything is asked
        indices = substream(self.seed, "pool").permutation(len(given.images))[: given.count]
        images = given.images[indices]
        answers = ask(victim, images)
        both = np.concatenate([images, images[..., ::-1]])
        return deliver(
            self.learner,
            TransferSet(both, np.concatenate([answers, answers])),
            seed=self.seed,
            queries_used=given.count,
            settings={"attack": self.name, "seed": self.seed, **met(victim, given.budget)},
            indices=indices,
        )


ENTRY = AttackEntry(Mirrored, "pool", "worked example of a plug-in")

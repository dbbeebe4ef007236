"""An attack: every response counts for the image and for its mirror image, at one query."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.extraction.attacks.base import PoolAttack, Queries, ask
from divqat_brevitas.extraction.attacks.catalogue import AttackEntry
from divqat_brevitas.extraction.learners.base import TransferSet
from divqat_brevitas.extraction.victim import Victim


@dataclass(frozen=True)
class Mirrored(PoolAttack):
    """KnockoffNets' random strategy, with each queried image mirrored left to right as well.

    It pays where a mirror image is of the same class: clothes, animals; not digits.
    """

    @property
    def name(self) -> str:
        """The attack's name in results."""
        return "mirrored"

    def _queries(self, victim: Victim, images: NDArray[Any], budget: int) -> Queries:
        """Ask random images of the pool; the clone is trained on twice as many."""
        indices = self._random(images, budget)
        asked = images[indices]
        responses = ask(victim, asked)
        both = np.concatenate([asked, asked[..., ::-1]])
        transfer_set = TransferSet(both, np.concatenate([responses, responses]))
        return Queries(transfer_set, indices, used=len(indices))


ENTRY = AttackEntry(Mirrored, "pool", "worked example of a plug-in")

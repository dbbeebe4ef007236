"""ActiveThief: queries in rounds, each time the images from which a clone learns most.

Pal et al., "ActiveThief: Model Extraction Using Active Learning and Unannotated Public Data",
AAAI 2020.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import unknown_name
from divqat_brevitas.extraction.arrays import Labels, check_bounds, substream, to_float
from divqat_brevitas.extraction.attacks.base import PoolAttack, Queries, Round, ask
from divqat_brevitas.extraction.attacks.selection import (
    deepfool_distance,
    entropy,
    greedy_k_center,
)
from divqat_brevitas.extraction.attacks.substitute import Substitute
from divqat_brevitas.extraction.learners.base import TransferSet
from divqat_brevitas.extraction.query.oracles import softmax
from divqat_brevitas.extraction.query.predictor import TorchPredictor
from divqat_brevitas.extraction.query.victim import Victim

SELECTIONS = ("k-center", "entropy", "dfal+k-center")


@dataclass(frozen=True)
class ActiveThief(PoolAttack):
    """Active learning of the victim from a pool.

    The first queries are random. In each further round a substitute is trained on all responses
    and selects the next queries:

    * "entropy": the images whose label it is least certain of;
    * "k-center": those whose probabilities are furthest from those of all queried images;
    * "dfal+k-center": k-center among the images nearest to its decision boundaries (DeepFool).

    The clone is trained from scratch on all responses. Deviations from the paper: no responses are
    held out for validation (20 % in the paper); DeepFool evaluates a random part of the pool each
    round and passes on as many images as the budget (the paper's ρ), but at most half of those
    that it evaluated, so that it excludes some even if the pool is hardly larger than the budget.

    Args:
        learner: trains the final clone.
        seed: of everything random in the attack, at least 0.
        selection: one of the above.
        initial: part of the budget that is asked at random, in (0, 1].
        rounds: number of rounds for the rest, at least 1.
        deepfool_images: images that DeepFool evaluates in a round, at least 1.
        substitute: settings of the clones that select.

    Raises:
        InputError: an unknown selection or a number out of range.

    Example:
        >>> from divqat_brevitas.extraction import PlainLearner
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> pool = np.random.default_rng(0).random((60, 1, 8, 8), np.float32)
        >>> fast = Substitute(surrogate="mlp", steps=2)
        >>> learner = PlainLearner(surrogate="mlp", epochs=1)
        >>> attack = ActiveThief(learner, rounds=2, substitute=fast)
        >>> result = attack.run(Victim(model, budget=40), pool)
        >>> [round_["queries"] for round_ in result.rounds], len(set(result.indices))
        ([4, 22, 40], 40)
    """

    selection: str = "k-center"
    initial: float = 0.1
    rounds: int = 10
    deepfool_images: int = 2000
    substitute: Substitute = field(default_factory=Substitute)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.selection not in SELECTIONS:
            raise unknown_name("selection", self.selection, SELECTIONS)
        check_bounds(
            self,
            initial=0 < self.initial <= 1,
            rounds=self.rounds >= 1,
            deepfool_images=self.deepfool_images >= 1,
        )

    @property
    def name(self) -> str:
        """The name in results: "active-" and the selection, with "k-center" as "kcenter"."""
        return f"active-{self.selection.replace('k-center', 'kcenter')}"

    def _queries(self, victim: Victim, images: NDArray[Any], budget: int) -> Queries:
        """Ask in rounds.

        A row has the "queries" so far and, after the first, the mean "entropy" in nats that the
        substitute had at the queried images and at those left in the "pool".
        """
        count = min(budget, len(images))
        first = max(2, round(self.initial * count))
        asked = self._random(images, first)
        responses = ask(victim, images[asked])
        rounds: list[Round] = [{"queries": first}]
        sizes = [len(part) for part in np.array_split(np.arange(count - first), self.rounds)]
        for number, size in enumerate(s for s in sizes if s > 0):
            clone = self.substitute.train(images[asked], responses, self.seed, number)
            left = np.setdiff1d(np.arange(len(images)), asked)
            new, uncertainty = self._choose(clone, images, asked, left, size, number, count)
            asked = np.concatenate([asked, new])
            responses = np.concatenate([responses, ask(victim, images[new])])
            rounds.append({"queries": len(asked)} | uncertainty)
        return Queries(TransferSet(images[asked], responses), asked, rounds)

    def _choose(
        self,
        clone: nn.Module,
        images: NDArray[Any],
        asked: Labels,
        left: Labels,
        size: int,
        number: int,
        total: int,
    ) -> tuple[Labels, dict[str, float]]:
        """The next queries, and the clone's mean uncertainty of them and of the pool."""
        probabilities = softmax(TorchPredictor(clone).predict(to_float(images[left])))
        uncertainty = entropy(probabilities)
        if self.selection == "entropy":
            selection = np.argsort(-uncertainty, kind="stable")[:size]
        else:
            near = np.arange(len(left))
            if self.selection == "dfal+k-center":
                near = self._near_boundary(clone, images, left, size, number, total)
            centers = softmax(TorchPredictor(clone).predict(to_float(images[asked])))
            selection = near[greedy_k_center(probabilities[near], centers, size)]
        means = {"entropy": float(uncertainty[selection].mean()), "pool": float(uncertainty.mean())}
        return left[selection], means

    def _near_boundary(
        self,
        clone: nn.Module,
        images: NDArray[Any],
        left: Labels,
        size: int,
        number: int,
        total: int,
    ) -> Labels:
        """Positions in ``left`` of the images nearest to another label."""
        sample_size = min(len(left), max(size, self.deepfool_images))
        rng = substream(self.seed, f"deepfool {number}")
        part = np.sort(rng.choice(len(left), sample_size, replace=False))
        distance = deepfool_distance(clone, to_float(images[left[part]]))
        count = max(size, min(total, sample_size // 2))
        return part[np.argsort(distance, kind="stable")[:count]]

"""Jacobian-based augmentation: few images, and new ones made with the clone's gradients.

* ``jbda``: Papernot et al., "Practical Black-Box Attacks against Machine Learning", ASIACCS 2017,
  algorithm 1: each round makes a new image of every image x, x + λ·sgn(J_F[O(x)]), O(x) being the
  label that the victim gave it; the sign of λ changes every few rounds.
* ``jbtr``: Juuti et al., "PRADA: Protecting against DNN Model Stealing Attacks", EuroS&P 2019
  ("T-RND"): the new image is moved towards a random other class, in several small steps.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from divqat_brevitas.errors import OneOf, Within
from divqat_brevitas.extraction.arrays import Images, Labels, substream, to_float
from divqat_brevitas.extraction.attacks.base import PoolAttack, Queries, Round, Substitute, ask
from divqat_brevitas.extraction.learners.base import TransferSet
from divqat_brevitas.extraction.victim import Victim

METHODS = ("jbda", "jbtr")
CRAFTING_BATCH = 256


@dataclass(frozen=True)
class JacobianAugmentation(PoolAttack):
    """Grow a transfer set from a few seed images, round by round, until the budget is spent.

    A round trains a substitute on all responses, makes a new image of each queried image (of a
    random part of them where fewer queries are left, or where ``reservoir`` is smaller) and asks
    the new images: the set doubles each round. The clone is trained from scratch on the complete
    set.

    A positive λ makes an image more like its label, so that the victim's response is predictable.
    The first author's code (CleverHans' black-box tutorial) begins with three rounds of -λ, and so
    does this class. Public copies of "jbtr" draw a new target at every step, which is a random
    walk; here the target of an image is fixed.

    Args:
        learner: trains the final clone.
        seed: of everything random in the attack.
        method: "jbda" or "jbtr".
        seeds: images taken from the front of the pool.
        step: λ, how far a pixel moves; images stay in [0, 1].
        iterations: number of small steps of "jbtr", each of step / iterations.
        period: number of rounds after which "jbda" changes the sign of its step (τ, Papernot et
            al., "Transferability in Machine Learning", arXiv 1605.07277), away from the label
            first; None: always towards the label, as in algorithm 1.
        reservoir: largest number of new images a round (κ, ibid.); None: no limit.
        substitute: settings of the clones that give the gradients.

    Example:
        >>> from divqat_brevitas.extraction import PlainLearner
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> seeds = np.random.default_rng(0).random((10, 1, 8, 8), np.float32)
        >>> fast = Substitute(surrogate="mlp", steps=2)
        >>> attack = JacobianAugmentation(PlainLearner(surrogate="mlp", epochs=1), substitute=fast)
        >>> result = attack.run(Victim(model, budget=35), seeds)
        >>> [round_["queries"] for round_ in result.rounds]
        [10, 20, 35]
    """

    method: Annotated[str, OneOf("augmentation method", METHODS)] = "jbda"
    seeds: Annotated[int, Within(low=2)] = 100
    step: Annotated[float, Within(above=0, high=1)] = 0.1
    iterations: Annotated[int, Within(low=1)] = 8
    period: Annotated[int | None, Within(low=1)] = 3
    reservoir: Annotated[int | None, Within(low=1)] = None
    substitute: Substitute = field(default_factory=Substitute)

    @property
    def name(self) -> str:
        """The method."""
        return self.method

    def _queries(self, victim: Victim, images: NDArray[Any], budget: int) -> Queries:
        """Ask the seeds and what grows from them; the budget is spent exactly.

        A row has the "queries" so far and, after the first, "moved" (mean absolute change of a
        pixel) and "kept_label" (fraction of new images with their origin's label).
        """
        rng = substream(self.seed, "augmentation")
        images = to_float(images[: min(self.seeds, budget)])
        seeds = len(images)
        responses = ask(victim, images)
        rounds: list[Round] = [{"queries": seeds}]
        while len(images) < budget:
            clone = self.substitute.train(images, responses, self.seed, len(rounds))
            size = min(len(images), budget - len(images), self.reservoir or len(images))
            origins = np.sort(rng.choice(len(images), size, replace=False))
            labels = responses[origins].argmax(axis=1)
            made = self._make(clone, images[origins], labels, responses.shape[1], len(rounds), rng)
            new = ask(victim, made)
            rounds.append(
                {
                    "queries": len(images) + size,
                    "moved": float(np.abs(made - images[origins]).mean()),
                    "kept_label": float((new.argmax(axis=1) == labels).mean()),
                }
            )
            images, responses = np.concatenate([images, made]), np.concatenate([responses, new])
        return Queries(TransferSet(images, responses), rounds=rounds, settings={"seeds": seeds})

    def _make(
        self,
        clone: nn.Module,
        images: Images,
        labels: Labels,
        classes: int,
        round_: int,
        rng: np.random.Generator,
    ) -> Images:
        if self.method == "jbtr":
            others = (labels + rng.integers(1, classes, len(labels))) % classes
            return step_towards(clone, images, others, self.step, self.iterations)
        away = self.period is not None and (round_ - 1) // self.period % 2 == 0
        return step_towards(clone, images, labels, -self.step if away else self.step)


def step_towards(
    clone: nn.Module, images: Images, labels: Labels, step: float, iterations: int = 1
) -> Images:
    """Images moved towards labels, by signs of the clone's gradient, clipped to [0, 1].

    One iteration is Papernot et al.'s x + λ·sgn(J_F[label](x)), F being the softmax output; more
    are the targeted iterative fast gradient sign method (Kurakin et al., ICLR workshop 2017). The
    gradient is that of log F, which has the same signs and does not vanish where the clone is
    certain. A negative ``step`` moves away from the label.

    Example:
        >>> clone = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
        >>> images = np.full((2, 1, 8, 8), 0.5, np.float32)
        >>> result = step_towards(clone, images, np.array([0, 2]), 0.125)
        >>> np.unique(np.abs(result - images)).tolist()
        [0.125]
    """
    parts = [
        _step_batch(clone, torch.from_numpy(x), torch.from_numpy(y), step / iterations, iterations)
        for x, y in zip(
            np.array_split(images, -(-len(images) // CRAFTING_BATCH)),
            np.array_split(labels.astype(np.int64), -(-len(images) // CRAFTING_BATCH)),
            strict=True,
        )
    ]
    return np.concatenate(parts)


def _step_batch(clone: nn.Module, x: Tensor, y: Tensor, step: float, iterations: int) -> Images:
    for _ in range(iterations):
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(clone(x), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        x = (x.detach() - step * gradient.sign()).clamp(0, 1)
    result: Images = x.numpy()
    return result

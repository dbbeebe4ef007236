"""Adaptive selection of queries: learn from the responses which images to ask next.

The method is KnockoffNets' adaptive strategy (see :mod:`.bandit`), with two deviations. Queries are
asked in rounds instead of one by one, so that engines and the clone's batch normalisation get
batches; the policy still learns image by image. An image is asked at most once: a group without
new images leaves the policy.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.extraction.arrays import (
    Images,
    Labels,
    Responses,
    check_bounds,
    substream,
    to_float,
)
from divqat_brevitas.extraction.attacks.bandit import (
    REWARDS,
    Floats,
    GradientBandit,
    reward_certainty,
    reward_diversity,
    reward_loss,
)
from divqat_brevitas.extraction.attacks.base import Round
from divqat_brevitas.extraction.learners.targets import as_probabilities, training_targets
from divqat_brevitas.extraction.query.oracles import softmax
from divqat_brevitas.extraction.query.predictor import TorchPredictor
from divqat_brevitas.extraction.query.victim import Victim
from divqat_brevitas.extraction.surrogates.networks import build_surrogate
from divqat_brevitas.extraction.surrogates.training import soft_cross_entropy


@dataclass(frozen=True, kw_only=True)
class AdaptiveSampling:
    """Settings of the adaptive strategy.

    Attributes:
        rewards: any of "certainty", "diversity" and "loss". With a "top1" oracle certainty is
            always 1 and has no effect.
        round_size: number of queries in a round, at least 2.
        window: number of images over which rewards are rescaled and averaged.
        groups: number of clusters of an unlabelled pool.
        learning_rate: of the clone that gives the "loss" reward, plain SGD.
    """

    rewards: tuple[str, ...] = REWARDS
    round_size: int = 32
    window: int = 256
    groups: int = 32
    learning_rate: float = 0.02

    def __post_init__(self) -> None:
        for reward in self.rewards:
            if reward not in REWARDS:
                raise unknown_name("reward", reward, REWARDS)
        check_bounds(
            self,
            rewards=len(self.rewards) > 0,
            round_size=self.round_size >= 2,
            window=self.window >= 2,
            groups=self.groups >= 1,
            learning_rate=self.learning_rate > 0,
        )


def sample_adaptively(
    victim: Victim,
    pool: NDArray[Any],
    labels: Labels,
    count: int,
    *,
    surrogate: str,
    targets: str,
    seed: int,
    settings: AdaptiveSampling,
) -> tuple[Labels, Responses, list[Round]]:
    """Ask ``count`` images of the pool, chosen by a gradient bandit over their labels.

    Args:
        victim: gets exactly ``count`` queries.
        pool: uint8 or float32 (N, C, H, W).
        labels: int64 (N,), the action each image belongs to.
        count: number of queries, at most N.
        surrogate: network of the clone whose errors make the "loss" reward.
        targets: how that clone's training targets are made of the responses.
        seed: of the selection and of that clone.
        settings: see :class:`AdaptiveSampling`.

    Returns:
        Positions of the queried images, int64 (count,); their responses, float32 (count, classes);
        and one row a round with the "queries" so far, the mean of each reward, the mean
        "advantage" and the "policy" after it.
    """
    rng = substream(seed, "adaptive")
    actions, labels = np.unique(labels, return_inverse=True)
    stock = _Stock(labels, rng)
    bandit = GradientBandit(len(actions), settings.window)
    student: _Student | None = None
    indices = np.zeros(0, dtype=np.int64)
    responses: Responses | None = None
    rounds: list[Round] = []
    for start in range(0, count, settings.round_size):
        size = min(settings.round_size, count - start)
        picks = np.array([stock.draw(bandit.policy(stock.available())) for _ in range(size)])
        images = to_float(pool[picks])
        new = as_probabilities(victim.query(images), victim.oracle)
        if student is None or responses is None:
            student = _Student(surrogate, images, new.shape[1], seed, settings.learning_rate)
            responses = new[:0]
        rewards = {
            "certainty": reward_certainty(new),
            "diversity": reward_diversity(new, _average(responses[-settings.window :])),
            "loss": reward_loss(new, student.probabilities(images)),
        }
        steps = np.stack([rewards[name] for name in settings.rewards], axis=1)
        advantages = [bandit.update(int(labels[i]), r) for i, r in zip(picks, steps, strict=True)]
        indices, responses = np.concatenate([indices, picks]), np.concatenate([responses, new])
        rounds.append(
            {
                "queries": len(indices),
                **{name: float(rewards[name].mean()) for name in settings.rewards},
                "advantage": float(np.mean(advantages)),
                "policy": bandit.policy().tolist(),
            }
        )
        if len(indices) < count:
            # The round again with as many earlier images, so that these are not forgotten.
            replay = rng.integers(len(indices), size=size)
            batch = np.concatenate([np.arange(start, start + size), replay])
            student.learn(
                to_float(pool[indices[batch]]), training_targets(responses[batch], targets)
            )
    if responses is None:
        raise InputError("the adaptive strategy needs at least one query.")
    return indices, responses, rounds


def _average(responses: Responses) -> Floats:
    """Mean response, float64 (classes,); uniform without responses."""
    if len(responses) == 0:
        return np.full(responses.shape[1], 1 / responses.shape[1])
    mean: Floats = responses.mean(axis=0, dtype=np.float64)
    return mean


class _Stock:
    """The images that are not asked yet, by action."""

    def __init__(self, labels: Labels, rng: np.random.Generator) -> None:
        self._rng = rng
        self._fresh = [
            rng.permutation(np.flatnonzero(labels == action)).tolist()
            for action in range(int(labels.max()) + 1)
        ]

    def available(self) -> NDArray[np.bool_]:
        return np.array([len(images) > 0 for images in self._fresh])

    def draw(self, policy: Floats) -> int:
        """A new image of an action drawn from ``policy``."""
        image: int = self._fresh[self._rng.choice(len(policy), p=policy)].pop()
        return image


class _Student:
    """A clone that is trained only for the rewards."""

    def __init__(
        self, surrogate: str, images: Images, classes: int, seed: int, learning_rate: float
    ) -> None:
        _, channels, height, width = images.shape
        self.model = build_surrogate(surrogate, (channels, height, width), classes, seed)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=learning_rate, momentum=0.9)

    def probabilities(self, images: Images) -> Responses:
        return softmax(TorchPredictor(self.model).predict(images))

    def learn(self, images: Images, targets: Responses) -> None:
        self.model.train()
        loss = soft_cross_entropy(self.model(torch.from_numpy(images)), torch.from_numpy(targets))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()

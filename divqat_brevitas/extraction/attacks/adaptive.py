"""KnockoffNets' adaptive strategy: learn from the responses which images to ask next.

Orekondy, Schiele and Fritz, "Knockoff Nets", CVPR 2019, sec. 4: a gradient bandit over groups of
pool images. Actions are the pool's classes, the policy is a softmax over preferences, updated by
the gradient-bandit rule (Sutton and Barto, "Reinforcement Learning", sec. 2.8) with step
1/N(action); rewards favour confident, diverse responses on which the clone is still wrong. The
Adversarial Robustness Toolbox has the same rule, but standardises rewards over the whole past
instead of rescaling them over a window, and takes the clone's loss after it has trained on the
image; here it is taken before.

There are two deviations from the paper. Queries are asked in rounds instead of one by one, so that
engines and the clone's batch normalisation get batches; the policy still learns image by image. An
image is asked at most once: a group without new images leaves the policy.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import CheckedSettings, InputError, Within, unknown_name
from divqat_brevitas.extraction.arrays import Images, Labels, Responses, substream, to_float
from divqat_brevitas.extraction.attacks.base import Round
from divqat_brevitas.extraction.learners.targets import as_probabilities, training_targets
from divqat_brevitas.extraction.oracles import softmax
from divqat_brevitas.extraction.predictor import TorchPredictor
from divqat_brevitas.extraction.surrogates.networks import build_surrogate
from divqat_brevitas.extraction.surrogates.training import soft_cross_entropy
from divqat_brevitas.extraction.victim import Victim
from divqat_brevitas.short_repr import ShortRepr

REWARDS = ("certainty", "diversity", "loss")
Floats = NDArray[np.float64]


def reward_certainty(probabilities: Responses) -> Floats:
    """Margin between the two largest probabilities of each row, in [0, 1]."""
    top = np.partition(probabilities.astype(np.float64), -2, axis=1)[:, -2:]
    margin: Floats = top[:, 1] - top[:, 0]
    return margin


def reward_diversity(probabilities: Responses, average: Floats) -> Floats:
    """Excess of each row over the average response so far: sum of max(0, p - average)."""
    rise: Floats = np.maximum(0.0, probabilities - average).sum(axis=1)
    return rise


def reward_loss(probabilities: Responses, clone_probabilities: Responses) -> Floats:
    """Cross-entropy of the clone's probabilities against the victim's, row by row, in nats."""
    # The lower bound prevents an infinite reward for a certain and wrong clone.
    logs = np.log(np.maximum(clone_probabilities.astype(np.float64), 1e-12))
    entropy: Floats = -(probabilities * logs).sum(axis=1)
    return entropy


@dataclass
class GradientBandit(ShortRepr):
    """A softmax policy over actions, learned from rewards.

    Each reward is rescaled to [0, 1] over a window of the latest steps, and its mean over that
    window is the baseline. The advantages of all rewards are added with equal weight.

    Args:
        actions: number of actions, at least 1.
        window: number of steps whose rewards are kept (the paper's Δ).

    Example:
        >>> bandit = GradientBandit(actions=2, window=10)
        >>> bandit.update(0, np.array([0.0]))  # the first reward has nothing to be compared with
        0.0
        >>> bandit.update(1, np.array([1.0]))
        0.5
        >>> bool(bandit.policy()[1] > bandit.policy()[0])
        True
    """

    actions: int
    window: int
    preferences: Floats = field(init=False)
    draws: Labels = field(init=False)

    def __post_init__(self) -> None:
        self.preferences = np.zeros(self.actions)
        self.draws = np.zeros(self.actions, dtype=np.int64)
        self._recent: deque[Floats] = deque(maxlen=self.window)

    def policy(self, available: NDArray[np.bool_] | None = None) -> Floats:
        """Probability of each action, float64 (actions,), of sum 1; 0 for those not available."""
        preferences = self.preferences.copy()
        if available is not None:
            preferences[~available] = -np.inf
        weights = np.exp(preferences - preferences.max())
        probabilities: Floats = weights / weights.sum()
        return probabilities

    def update(self, action: int, rewards: Floats) -> float:
        """Update the policy after one step and return the step's advantage.

        The rewards, float64 (kinds,), are of the same kinds at every step.
        """
        self._recent.append(rewards)
        recent = np.stack(self._recent)
        low, span = recent.min(axis=0), np.ptp(recent, axis=0)
        scaled = np.where(span > 0, (recent - low) / np.where(span > 0, span, 1.0), 0.0)
        advantage = float((scaled[-1] - scaled.mean(axis=0)).sum())

        self.draws[action] += 1
        gradient = -self.policy()
        gradient[action] += 1.0
        self.preferences += advantage / self.draws[action] * gradient
        return advantage


def group_images(
    images: NDArray[Any], groups: int, rng: np.random.Generator, rounds: int = 20
) -> Labels:
    """Stand-in classes for an unlabelled pool: k-means on images averaged down to 8×8.

    Lloyd's algorithm from k-means++ seeds (Arthur and Vassilvitskii, SODA 2007).

    Args:
        images: uint8 or float32 (N, C, H, W), sides of at least 8.
        groups: requested number of clusters.
        rng: draws the seeds.
        rounds: largest number of rounds of Lloyd's algorithm.

    Returns:
        int64 (N,) in [0, K), each of the K <= ``groups`` clusters used.
    """
    # By parts: a whole pool as float32 can be large.
    points = np.concatenate(
        [_average_down(to_float(images[i : i + 1024])) for i in range(0, len(images), 1024)]
    )
    centres = points[rng.integers(len(points))][None]
    nearest = _squared_distances(points, centres)[:, 0]
    while len(centres) < min(groups, len(points)) and nearest.sum() > 0:
        chosen = rng.choice(len(points), p=nearest / nearest.sum())
        centres = np.vstack([centres, points[chosen]])
        nearest = np.minimum(nearest, _squared_distances(points, centres[-1:])[:, 0])

    labels = _squared_distances(points, centres).argmin(axis=1)
    for _ in range(rounds):
        used = np.unique(labels)
        centres = np.stack([points[labels == group].mean(axis=0) for group in used])
        reassigned = _squared_distances(points, centres).argmin(axis=1)
        if np.array_equal(used[reassigned], labels):
            break
        labels = reassigned
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _average_down(images: Images) -> Floats:
    """Flat float64 (N, C·8·8): means over a grid of 8×8 almost equal cells."""
    _, _, height, width = images.shape
    rows = np.arange(8) * height // 8
    columns = np.arange(8) * width // 8
    sums = np.add.reduceat(np.add.reduceat(images, rows, axis=2), columns, axis=3)
    cells = np.diff(np.append(rows, height))[:, None] * np.diff(np.append(columns, width))
    means: Floats = (sums / cells).astype(np.float64)
    return means.reshape(len(images), -1)


def _squared_distances(points: Floats, centres: Floats) -> Floats:
    """float64 (N, K); clipped at 0, where rounding could leave a small negative number."""
    products = points @ centres.T
    squares = (points**2).sum(axis=1)[:, None] - 2 * products + (centres**2).sum(axis=1)
    clipped: Floats = np.maximum(squares, 0.0)
    return clipped


@dataclass(frozen=True, kw_only=True)
class AdaptiveSampling(CheckedSettings):
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
    round_size: Annotated[int, Within(low=2)] = 32
    window: Annotated[int, Within(low=2)] = 256
    groups: Annotated[int, Within(low=1)] = 32
    learning_rate: Annotated[float, Within(above=0)] = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rewards:
            raise InputError("AdaptiveSampling: rewards must name at least one reward.")
        for reward in self.rewards:
            if reward not in REWARDS:
                raise unknown_name("reward", reward, REWARDS)


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
    """Ask exactly ``count`` images of the pool, chosen by a gradient bandit over their labels.

    ``surrogate`` and ``targets`` define the clone whose errors make the "loss" reward.

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

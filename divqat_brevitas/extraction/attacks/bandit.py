"""The policy of adaptive sampling: a gradient bandit over groups of pool images.

Orekondy, Schiele and Fritz, "Knockoff Nets", CVPR 2019, sec. 4: actions are the pool's classes,
the policy is a softmax over preferences, updated by the gradient-bandit rule (Sutton and Barto,
"Reinforcement Learning", sec. 2.8) with step 1/N(action); rewards favour confident, diverse
responses on which the clone is still wrong. The Adversarial Robustness Toolbox has the same rule,
but standardises rewards over the whole past instead of rescaling them over a window, and takes
the clone's loss after it has trained on the image; here it is taken before.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.extraction.arrays import Images, Labels, Responses, to_float
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
        """Probability of each action, float64 (actions,), summing to 1.

        Args:
            available: actions with images left, at least one; the others get exactly 0.
        """
        preferences = self.preferences.copy()
        if available is not None:
            preferences[~available] = -np.inf
        weights = np.exp(preferences - preferences.max())
        probabilities: Floats = weights / weights.sum()
        return probabilities

    def update(self, action: int, rewards: Floats) -> float:
        """Update the policy after one step and return the step's advantage.

        Args:
            action: the action of the step.
            rewards: float64 (kinds,), the same kinds at every step.
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

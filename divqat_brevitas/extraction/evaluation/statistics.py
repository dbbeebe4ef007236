"""Means and differences of clone accuracies, with intervals over what was repeated.

A clone's accuracy varies with the seed of its victim's training, with the seed of the attack and
with the test images. Every mean here is a mean over victim seeds of means over attack seeds, and a
difference is taken inside each (victim seed, attack seed) pair of both victims. That removes what
the pair shares: data order, initial weights of the clone, the images drawn.

Values are fractions of ``images`` by (victim seed, attack seed); ``images`` is the number of test
images of each, None where it is not known. An interval is about one of two things.

**These trained victims.** Fewer than :data:`MIN_VICTIMS` trained victims support no statement about
the training method, and the interval is about the trained networks (:func:`victims_interval`,
``Difference.these``). It joins two sources:

* attack seeds: Student's t on the spread inside each victim, pooled over victims; left out, as
  :func:`basis` states, where every victim was attacked with one seed;
* test images: Wilson's score interval ("Probable inference", J. Am. Stat. Assoc. 22, 1927).

They are joined by MOVER, which recovers variances from the ends of intervals (Zou and Donner,
"Construction of confidence limits about effect measures", Stat. Med. 27, 2008): the distances from
the mean add up in squares. Clones share the test images, so Wilson's interval counts these once,
however many clones there are. In a difference MOVER takes the two sides as independent, which is
Newcombe's hybrid score interval (Stat. Med. 17, 1998). Both sides meet the same images, so this
errs on the wide side.

**The training method.** From :data:`MIN_VICTIMS` trained victims on, the victim seed is the
independent repeat: clones of one victim share its accidents.

* ``t``: Student's t on the victim seeds' means. Every claim rests on it. With three seeds it is
  2.5 standard deviations to either side (t = 4.30 at two degrees of freedom): wide, because three
  values hardly fix a standard deviation, and right only if the seeds' means are about normal,
  which three values cannot show.
* ``bootstrap``: hierarchical percentile bootstrap (Davison and Hinkley, "Bootstrap Methods and
  their Application", 1997, section 3.8; the outer level is resampled, then the inner one within
  each drawn group). At three victim seeds one resample of nine holds a single seed three times,
  so the interval ends near the lowest and highest seed and covers less than 95 % (about 75 % for
  normal values, the probability that the true mean lies between three values). It shows the
  spread and decides nothing.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev, variance

import numpy as np
from scipy.special import stdtrit

Pair = tuple[int, int]
"""(victim seed, attack seed)."""

MIN_VICTIMS = 3
"""Smallest number of trained victims for a statement about the training method."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, in the unit of its values."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Difference:
    """The value of ours minus that of theirs over common pairs of seeds; see the module.

    Attributes:
        mean: over victim seeds of means over attack seeds.
        t: Student's interval over victim seeds; None with fewer than two.
        bootstrap: hierarchical bootstrap interval; None with fewer than two victim seeds.
        these: interval about these trained victims; None where nothing was repeated and the number
            of test images is not known.
        basis: what ``these`` is over, in words.
        victim_seeds: number of independent repeats.
        pairs: number of pairs of seeds.
    """

    mean: float
    t: Interval | None
    bootstrap: Interval | None
    these: Interval | None
    basis: str
    victim_seeds: int
    pairs: int

    @property
    def about_method(self) -> bool:
        """Whether there are enough trained victims for a claim about the training method."""
        return self.victim_seeds >= MIN_VICTIMS

    @property
    def interval(self) -> Interval | None:
        """The interval to show: over victim seeds where there are enough, else ``these``."""
        return self.t if self.about_method else self.these

    @property
    def over(self) -> str:
        """What :attr:`interval` is over, in words."""
        return f"over {self.victim_seeds} victim seeds" if self.about_method else self.basis


def difference(
    ours: Mapping[Pair, float], theirs: Mapping[Pair, float], images: int | None = None
) -> Difference | None:
    """Paired difference of two victims' values; None where they share no pair of seeds.

    Example:
        >>> found = difference({(0, 0): 0.5, (1, 0): 0.7}, {(0, 0): 0.6, (1, 0): 0.9, (2, 0): 0.1})
        >>> round(found.mean, 3), found.victim_seeds, found.about_method
        (-0.15, 2, False)
    """
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return None
    paired = {pair: ours[pair] - theirs[pair] for pair in common}
    nested = _by_victim(paired)
    means = [fmean(group) for group in nested.values()]
    repeated = len(means) > 1
    return Difference(
        mean=fmean(means),
        t=t_interval(means) if repeated else None,
        bootstrap=hierarchical_bootstrap(list(nested.values())) if repeated else None,
        these=_these(
            paired,
            mean_over_seeds({pair: ours[pair] for pair in common}),
            mean_over_seeds({pair: theirs[pair] for pair in common}),
            images,
        ),
        basis=basis(paired, images),
        victim_seeds=len(means),
        pairs=len(paired),
    )


def victims_interval(values: Mapping[Pair, float], images: int | None) -> Interval | None:
    """95 % interval of the mean over these trained victims, in [0, 1]; see the module.

    Example:
        >>> found = victims_interval({(0, 0): 0.5}, images=100)
        >>> round(found.low, 3), round(found.high, 3)
        (0.404, 0.596)
    """
    middle = mean_over_seeds(values)
    seeds = _half_over_attack_seeds(values)
    if seeds is None and images is None:
        return None
    score = Interval(middle, middle) if images is None else wilson(middle, images)
    below = math.hypot(middle - score.low, seeds or 0.0)
    above = math.hypot(score.high - middle, seeds or 0.0)
    return Interval(max(middle - below, 0.0), min(middle + above, 1.0))


def basis(values: Mapping[Pair, float], images: int | None) -> str:
    """What :func:`victims_interval` of these values is over, in words.

    Example:
        >>> basis({(0, 0): 0.5}, 1000)
        'over 1,000 test images only, with one attack seed'
    """
    victims = len(_by_victim(values))
    repeated = len(values) > victims
    one = "one attack seed" if victims == 1 else "one attack seed a victim"
    if images is None:
        return "over attack seeds only" if repeated else f"no interval: {one}"
    where = f"{images:,} test images"
    return f"over attack seeds and {where}" if repeated else f"over {where} only, with {one}"


def wilson(share: float, count: int) -> Interval:
    """Wilson's 95 % score interval of a share of ``count`` images.

    Example:
        >>> wilson(0.0, 10).low, round(wilson(0.0, 10).high, 4)
        (0.0, 0.2775)
    """
    square = NormalDist().inv_cdf(0.975) ** 2
    middle = share + square / (2 * count)
    half = math.sqrt(square * (share * (1 - share) / count + square / (4 * count * count)))
    # At the ends the interval touches 0 or 1, an ulp aside.
    scale = 1 + square / count
    low, high = max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)
    return Interval(min(low, share), max(high, share))


def mean_over_seeds(values: Mapping[Pair, float]) -> float:
    """Mean over victim seeds of means over attack seeds; ``values`` must not be empty."""
    return fmean(seed_means(values).values())


def seed_means(values: Mapping[Pair, float]) -> dict[int, float]:
    """Victim seed to the mean over its attack seeds, in order of seeds."""
    return {seed: fmean(group) for seed, group in _by_victim(values).items()}


def t_interval(values: Sequence[float]) -> Interval:
    """Student's 95 % interval of the mean of at least two independent values.

    Example:
        >>> t_interval([1.0, 2.0, 3.0]).high - 2 > 2.48
        True
    """
    middle = fmean(values)
    half = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(middle - half, middle + half)


def t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t."""
    return float(stdtrit(degrees, 0.975))


def hierarchical_bootstrap(
    groups: Sequence[Sequence[float]], draws: int = 10_000, seed: int = 0
) -> Interval:
    """95 % percentile interval of the mean over groups of the groups' means.

    Example:
        >>> hierarchical_bootstrap([[0.1, 0.1], [0.3, 0.3]])
        Interval(low=0.1, high=0.3)
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(groups), (draws, len(groups)))
    means = np.empty(drawn.shape)
    for index, group in enumerate(groups):
        values = np.asarray(group, np.float64)
        here = drawn == index
        inner = rng.integers(0, len(values), (int(here.sum()), len(values)))
        means[here] = values[inner].mean(axis=1)
    low, high = np.quantile(means.mean(axis=1), [0.025, 0.975])
    return Interval(float(low), float(high))


def _by_victim(values: Mapping[Pair, float]) -> dict[int, list[float]]:
    groups: dict[int, list[float]] = defaultdict(list)
    for (victim_seed, _), value in sorted(values.items()):
        groups[victim_seed].append(value)
    return groups


def _half_over_attack_seeds(values: Mapping[Pair, float]) -> float | None:
    """Half of the t-interval over attack seeds, pooled over victims; None without a repeat."""
    groups = list(_by_victim(values).values())
    degrees = sum(len(group) - 1 for group in groups)
    if not degrees:
        return None
    pooled = sum((len(g) - 1) * variance(g) for g in groups if len(g) > 1) / degrees
    error = math.sqrt(pooled * sum(1 / len(group) for group in groups)) / len(groups)
    return t_quantile(degrees) * error


def _these(
    paired: Mapping[Pair, float], ours: float, theirs: float, images: int | None
) -> Interval | None:
    """MOVER of two Wilson intervals and the t-interval of the paired differences."""
    seeds = _half_over_attack_seeds(paired)
    if seeds is None and images is None:
        return None
    mine, base = (
        Interval(share, share) if images is None else wilson(share, images)
        for share in (ours, theirs)
    )
    middle = mean_over_seeds(paired)
    below = math.hypot(ours - mine.low, base.high - theirs, seeds or 0.0)
    above = math.hypot(mine.high - ours, theirs - base.low, seeds or 0.0)
    return Interval(max(middle - below, -1.0), min(middle + above, 1.0))

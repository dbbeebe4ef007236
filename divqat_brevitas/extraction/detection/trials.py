"""Trials of a tripwire: simulated users and attackers, drawn from a victim's real rejected bits.

A simulated user asks images of its own kinds (:class:`Asker`); the rejected bit of each is that of
a real image, measured with the victim. Honest users show false alarms. Attackers ask a query pool
and evade: with images of the victim's own kind in between, in lots from reset to reset, from
several devices or tokens, or padded, one accepted image asked whenever the counter is near its
alarm. :func:`trial` makes a row of ``detection`` in results.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import betaincinv

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Labels, substream
from divqat_brevitas.extraction.detection.tripwire import Rejected, Tripwire, design_tripwire
from divqat_brevitas.short_repr import ShortRepr

SHARES = (0.0, 0.25, 0.5, 0.75)
"""Shares of in-distribution images that attackers mix in, unless said otherwise."""
NO_TRIPWIRE = "no tripwire: honest images are rejected nearly as often as an attacker's."
"""What programs report where :func:`choose_tripwire` returns None."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class DetectionFields(BaseModel):
    """One trial of a tripwire: a row of "detection" in results.

    Attributes:
        victim: variant of the victim, whose rejected bits these are.
        policy: of the tripwire.
        pool: what the attacker asks; of a row on honest users only, what these ask.
        share_in_distribution: share of in-distribution images among the attacker's queries.
        alarm_after_median: median number of queries to the alarm, over the attackers that raised
            one; None where fewer than half of them did.
        detected: share of the attackers that raised it within their budget.
        false_alarm_rate: share of the honest users that raised it.
        users: number of simulated honest users.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    victim: str
    policy: str
    pool: str
    share_in_distribution: Share
    alarm_after_median: float | None
    detected: Share | None
    false_alarm_rate: Share | None
    users: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Asker(ShortRepr):
    """What a simulated user asks: images, each drawn anew from one of several sources.

    Attributes:
        rejected: of each source, the rejected bits of its images, bool (N,).
        shares: of each source, the share of the queries; None: one source.

    Raises:
        InputError: no bits, or shares that do not fit.

    Example:
        >>> own, pool = np.zeros(10, bool), np.ones(10, bool)
        >>> Asker((own, pool), (0.75, 0.25)).rate
        0.25
    """

    rejected: tuple[Rejected, ...]
    shares: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for bits in self.rejected:
            if np.ndim(bits) != 1 or np.asarray(bits).dtype != np.bool_ or not len(bits):
                raise InputError("rejected bits must be truth values of shape (N,), at least one.")
        weights = self.weights
        if len(weights) != len(self.rejected) or min(weights) < 0 or abs(sum(weights) - 1) > 1e-9:
            raise InputError(f"shares must be one a source and add up to 1, not {weights}.")

    @property
    def weights(self) -> tuple[float, ...]:
        """The share of each source."""
        return (1.0,) if self.shares is None else self.shares

    @property
    def rate(self) -> float:
        """The chance that a query is rejected."""
        pairs = zip(self.weights, self.rejected, strict=True)
        return float(sum(share * np.mean(bits) for share, bits in pairs))

    def draw(self, users: int, rng: np.random.Generator) -> Rejected:
        """The rejected bit of one query of each user, bool (users,)."""
        parts = [bits[rng.integers(0, len(bits), users)] for bits in self.rejected]
        if len(parts) == 1:
            return parts[0]
        source = rng.choice(len(parts), users, p=self.weights)
        return np.choose(source, parts).astype(np.bool_)


def album(rejected: Rejected, images: int, users: int, seed: int) -> "Album":
    """Users who ask a few images of their own again and again; see :class:`Album`."""
    rng = substream(seed, "album")
    return Album(rejected[rng.integers(0, len(rejected), (users, images))])


@dataclass(frozen=True)
class Album(ShortRepr):
    """Users with a few images each, all of whose queries are among them: correlated rejections.

    Attributes:
        rejected: bool (users, images).
    """

    rejected: Rejected

    @property
    def rate(self) -> float:
        """The mean chance that a query is rejected."""
        return float(self.rejected.mean())

    def draw(self, users: int, rng: np.random.Generator) -> Rejected:
        """The rejected bit of one query of each user, bool (users,)."""
        asked = rng.integers(0, self.rejected.shape[1], users)
        bits: Rejected = self.rejected[np.arange(users), asked]
        return bits


def simulate(
    tripwire: Tripwire,
    asker: Asker | Album,
    users: int,
    queries: int,
    seed: int = 0,
    start: int | None = None,
) -> NDArray[np.int64]:
    """Number of queries to each user's alarm, int64 (users,); 0 where none was raised.

    Args:
        tripwire: counts.
        asker: what the users ask.
        users: number of users.
        queries: of each user.
        seed: of the draws.
        start: the counter before the first query; None: that of a reset.

    Example:
        >>> tripwire = Tripwire(add=6, subtract=1, alarm_at=46, start=26)
        >>> simulate(tripwire, Asker((np.ones(5, bool),)), users=3, queries=10)
        array([4, 4, 4])
    """
    rng = substream(seed, "tripwire")
    counters = np.full(users, tripwire.start if start is None else start, np.int32)
    alarms = np.zeros(users, np.int64)
    for query in range(1, queries + 1):
        tripwire.advance(counters, asker.draw(users, rng))
        alarms[(counters == tripwire.alarm_at) & (alarms == 0)] = query
        if alarms.all():
            break
    return alarms


def median_alarm(alarms: NDArray[np.int64]) -> float | None:
    """The median number of queries to the alarm; None where fewer than half raised it.

    Users without an alarm count as later than all others.

    Example:
        >>> median_alarm(np.array([4, 8, 0])), median_alarm(np.array([4, 0, 0]))
        (8.0, None)
    """
    late = np.where(alarms == 0, np.inf, alarms.astype(np.float64))
    middle = float(np.median(late))
    return middle if np.isfinite(middle) else None


def upper_rate(rejected: Rejected, confidence: float = 0.99) -> float:
    """Upper confidence bound of a rejection rate (Clopper and Pearson, Biometrika 26, 1934).

    Example:
        >>> round(upper_rate(np.zeros(100, bool), 0.95), 4)
        0.0295
    """
    hits, count = int(np.sum(rejected)), len(rejected)
    return 1.0 if hits == count else float(betaincinv(hits + 1, count - hits, confidence))


def honest_rate(rejected: Rejected, labels: Labels, confidence: float = 0.99) -> float:
    """The rejection rate p0 of honest users: the upper bound of the worst class.

    A user of one class only is honest too, so the mean over classes is no bound.

    Args:
        rejected: rejected bits of validation images, bool (N,).
        labels: their classes, int (N,).
        confidence: of each class's bound.

    Example:
        >>> honest_rate(np.array([False] * 50 + [True] * 50), np.repeat([0, 1], 50))
        1.0
    """
    return max(upper_rate(rejected[labels == label], confidence) for label in np.unique(labels))


def honest_users(rejected: Rejected, labels: Labels) -> dict[str, Asker]:
    """Class mixes of honest users: all classes, the worst one, the best one, the two worst.

    Args:
        rejected: rejected bits of images that the victim was not trained on, bool (N,).
        labels: their classes, int (N,).
    """
    classes = {int(label): rejected[labels == label] for label in np.unique(labels)}
    order = sorted(classes, key=lambda label: (-float(classes[label].mean()), label))
    worst = [classes[label] for label in order[:2]]
    return {
        "all classes": Asker((rejected,)),
        f"one class: {order[0]}": Asker((worst[0],)),
        f"one class: {order[-1]}": Asker((classes[order[-1]],)),
        **(
            {f"two classes: {order[0]} and {order[1]}": Asker(tuple(worst), (0.5, 0.5))}
            if len(order) > 1
            else {}
        ),
    }


def choose_tripwire(
    rejected: Rejected,
    labels: Labels,
    p1: float = 0.5,
    alpha: float = 1e-4,
    policy: str = "label-only",
    one_class: bool = True,
) -> tuple[Tripwire, dict[str, Any]] | None:
    """The tripwire of a victim, from its rejections of validation images, and what it rests on.

    p0 is :func:`honest_rate`, so that the bound of false alarms covers users of one class only. A
    decoy that shares a class of the data rejects that class's images and has no such tripwire.
    Without ``one_class`` p0 is the upper bound over all classes together, and users of the
    decoy's class only raise false alarms.

    Args:
        rejected: rejected bits of validation images, bool (N,).
        labels: their classes, int (N,).
        p1: see :func:`design_tripwire`, and ``alpha`` and ``policy``.
        alpha: bound of false alarms.
        policy: of the tripwire.
        one_class: whether the bound covers users of one class only.

    Returns:
        The tripwire and what it rests on; None where there is none, since honest users are
        rejected at more than half of p1.

    Raises:
        InputError: a p1 or a bound outside 0 to 1, or an unknown policy.

    Example:
        >>> labels = np.arange(1000) % 10
        >>> tripwire, about = choose_tripwire(np.arange(1000) % 100 == 0, labels)
        >>> about["p0_of"]
        'worst class'
        >>> choose_tripwire(labels == 0, labels) is None
        True
    """
    basis = "worst class" if one_class else "all classes"
    p0 = honest_rate(rejected, labels) if one_class else upper_rate(rejected)
    if 2 * p0 > p1:
        # Checks p1, alpha and policy as a victim without rejections would.
        design_tripwire(p1 / 2, p1, alpha, policy=policy)
        return None
    tripwire = design_tripwire(p0, p1, alpha, policy=policy)
    return tripwire, {
        "p0": p0,
        "p0_of": basis,
        "p1": p1,
        "counter": [tripwire.add, tripwire.subtract, tripwire.alarm_at, tripwire.start],
        "false_alarm_bound": tripwire.false_alarm_bound(p0),
    }


def mixed_rows(
    tripwire: Tripwire,
    victim: str,
    pool: str,
    rejected: Rejected,
    own: Rejected,
    budget: int = 5000,
    attackers: int = 1000,
    shares: Sequence[float] = SHARES,
) -> Iterator[dict[str, Any]]:
    """Rows of attackers with images of the victim's own kind in between.

    Args:
        tripwire: counts.
        victim: name of the victim.
        pool: name of the pool.
        rejected: rejected bits of the pool's images, bool (N,).
        own: rejected bits of in-distribution images.
        budget: queries of an attacker.
        attackers: number of simulated attackers at each share.
        shares: of in-distribution images among the queries.

    Example:
        >>> tripwire = Tripwire(add=6, subtract=1, alarm_at=46, start=26)
        >>> rows = mixed_rows(tripwire, "v", "noise", np.ones(9, bool), np.zeros(9, bool))
        >>> [row["queries_per_image"] for row in rows]
        [1.0, 1.3333333333333333, 2.0, 4.0]
    """
    for share in shares:
        asker = Asker((own, rejected), (share, 1 - share))
        about: Any = {"victim": victim, "pool": pool, "share": share}
        row = trial(tripwire, asker, **about, budget=budget, attackers=attackers)
        yield row.model_dump() | {
            "evasion": "own images" if share else "none",
            "queries_per_image": 1 / (1 - share),
            "pool_rate": float(rejected.mean()),
            "budget": budget,
        }


def padded(
    tripwire: Tripwire, rejected: Rejected, pad: Rejected, seed: int = 0, start: int | None = None
) -> tuple[int, int | None]:
    """The attacker who knows the counter and pads: queries asked, and those to its alarm.

    It sees which of its queries were rejected and knows the tripwire's numbers. Before each image
    of its pool it asks images of ``pad`` until a rejection would not raise the alarm. That is the
    best order there is.

    Args:
        tripwire: counts.
        rejected: rejected bits of the pool's images in the order asked, bool (N,).
        pad: rejected bits of the images that it pads with: images of the victim's own kind, one
            of them again and again, or slight changes of it.
        seed: of the draws from ``pad``.
        start: the counter before the first query; None: that of a reset.

    Returns:
        Number of queries asked, and number of queries to the alarm, None without one.

    Raises:
        InputError: a pad of which so many are rejected that it hides nothing.

    Example:
        >>> tripwire = Tripwire(add=6, subtract=1, alarm_at=46, start=26)
        >>> padded(tripwire, np.ones(10, bool), np.zeros(1, bool))
        (51, None)
    """
    if pad.mean() * tripwire.add >= (1 - pad.mean()) * tripwire.subtract:
        raise InputError("padding with images of which most are rejected hides nothing.")
    rng = substream(seed, "padding")
    state = tripwire.reset if start is None else tripwire.reset._replace(counter=start)
    asked = 0
    for bit in rejected:
        while state.counter + tripwire.add >= tripwire.alarm_at and not state.alarm:
            state = tripwire.count(state, bool(pad[rng.integers(len(pad))]))
            asked += 1
        if not state.alarm:
            state = tripwire.count(state, bool(bit))
            asked += 1
        if state.alarm:
            return asked, asked
    return asked, None


def queries_per_reset(
    tripwire: Tripwire, attacker: Asker, attackers: int = 10_000, most: int = 5000, seed: int = 0
) -> float:
    """Mean number of queries that an attacker asks from one reset to the next without any risk.

    It sees its rejections, knows the tripwire's numbers, and resets where one more rejection would
    raise the alarm. A new device or token is a reset too. At most ``most`` queries are counted,
    and 0 where the first query may raise the alarm.

    Example:
        >>> tripwire = Tripwire(add=6, subtract=1, alarm_at=46, start=26)
        >>> queries_per_reset(tripwire, Asker((np.ones(5, bool),)), attackers=10)
        3.0
    """
    edge = tripwire.alarm_at - tripwire.add
    if edge <= tripwire.start:
        return 0.0
    alarms = simulate(replace(tripwire, alarm_at=edge), attacker, attackers, most, seed)
    return float(np.where(alarms == 0, most, alarms).mean())


def trial(
    tripwire: Tripwire,
    attacker: Asker,
    *,
    victim: str,
    pool: str,
    share: float = 0.0,
    budget: int = 5000,
    attackers: int = 10_000,
    honest: Asker | Album | None = None,
    users: int = 0,
    queries: int = 1000,
    seed: int = 0,
    start: int | None = None,
) -> DetectionFields:
    """One row: how soon attackers are noticed, and how often honest users are.

    Args:
        tripwire: counts.
        attacker: what the attackers ask.
        victim: name of the victim.
        pool: name of the attackers' pool.
        share: share of in-distribution images among the attackers' queries.
        budget: queries of an attacker.
        attackers: number of simulated attackers.
        honest: what the honest users ask; None: no honest users.
        users: number of simulated honest users.
        queries: of each honest user.
        seed: of the draws.
        start: the counter before the attacker's first query; None: that of a reset.

    Example:
        >>> tripwire = Tripwire(add=6, subtract=1, alarm_at=46, start=26)
        >>> noise = Asker((np.ones(5, bool),))
        >>> trial(tripwire, noise, victim="qat", pool="noise").alarm_after_median
        4.0
    """
    alarms = simulate(tripwire, attacker, attackers, budget, seed, start)
    users = 0 if honest is None else users
    return DetectionFields(
        victim=victim,
        policy=tripwire.policy,
        pool=pool,
        share_in_distribution=share,
        alarm_after_median=median_alarm(alarms),
        detected=float((alarms > 0).mean()),
        false_alarm_rate=false_alarm_rate(tripwire, honest, users, queries, seed)
        if honest is not None and users
        else None,
        users=users,
    )


def false_alarm_rate(
    tripwire: Tripwire, honest: Asker | Album, users: int, queries: int = 1000, seed: int = 0
) -> float:
    """Share of simulated honest users that raise an alarm within ``queries`` queries each.

    Example:
        >>> tripwire = Tripwire(add=6, subtract=1, alarm_at=46, start=26)
        >>> false_alarm_rate(tripwire, Asker((np.arange(200) == 0,)), users=1000, queries=50)
        0.0
    """
    return float((simulate(tripwire, honest, users, queries, seed) > 0).mean())

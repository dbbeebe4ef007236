"""The tripwire, in integers: a saturating counter of rejected queries that raises an alarm.

A victim with a reject output rejects few images of an honest user and most images of an
out-of-distribution attacker. The counter adds ``add`` for a rejected query, subtracts ``subtract``
for another one, stays within 0 and ``alarm_at``, and raises the alarm at ``alarm_at``. The weights
are those of Wald's sequential probability ratio test of two rejection rates p0 < p1 ("Sequential
tests of statistical hypotheses", Ann. Math. Stat. 16, 1945), as small integers; the floor at 0
makes it Page's cumulative sum ("Continuous inspection schemes", Biometrika 41, 1954), so that an
attacker cannot save up honest queries without end.

**Trust is earned.** After power-up, or for a new token, the counter starts high, at ``start``, and
the user is not trusted until it was worked down to 0. Alarms stay until the next reset. A reset
hence gives an attacker nothing that it did not have: the policy is in force until trust is earned.

**Error bounds.** Let each query of a user be rejected with a probability of at most p0, whatever
happened before. With the positive solution r of ``p0 exp(r add) + (1 - p0) exp(-r subtract) = 1``
the process ``exp(r counter)`` is a supermartingale between two visits of the floor. Ville's
inequality ("Étude critique de la notion de collectif", 1939) bounds the chance of ever reaching
``alarm_at`` from ``start`` by ``exp(-r (alarm_at - start))``, and from the floor, by each rejected
query that is asked there, by ``exp(-r (alarm_at - add))``. The sum over N queries is
:meth:`Tripwire.false_alarm_bound`. The counter is monotone in the rejected bits, so independent
rejections at rate p0 are the worst case; :meth:`Tripwire.alarm_probability` is the exact value of
that case, from the Markov chain of the counter.

Nothing here is new: PRADA (Juuti et al., EuroS&P 2019) tests the distances between queries, SEAT
(Zhang et al., AISec 2021) and Blacklight (Li et al., USENIX Security 2022) look for similar
queries, HODA (Sadeghzadeh et al., TDSC 2023) compares histograms of hardness, D-ADD (2023) clusters
accounts; patent US 12,455,976 claims a percentage of inputs outside the domain.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from divqat_brevitas.errors import CheckedSettings, InputError, OneOf, Within

POLICIES = ("report", "label-only", "slow", "lock")
"""What an alarm does: nothing but report it; show labels only, or slow down, also until trust is
earned; or show labels only until trust is earned and nothing after an alarm."""
LIFETIME = 1_000_000
"""Queries of an honest user that the bound of false alarms covers, unless said otherwise."""
_LARGEST = 1 << 16
_DENOMINATOR = 4  # of add / subtract: keeps the counter at a few bits

Rejected = NDArray[np.bool_]


class State(NamedTuple):
    """A user's state: of a token at a server, or of a chip since its reset.

    Attributes:
        counter: from 0 to ``alarm_at``.
        trusted: whether the counter has been 0 since the reset.
        alarm: whether the counter has reached ``alarm_at`` since the reset.
    """

    counter: int
    trusted: bool = False
    alarm: bool = False


@dataclass(frozen=True, kw_only=True)
class Tripwire(CheckedSettings):
    """The sequential test; :func:`design_tripwire` chooses its numbers.

    Args:
        add: to the counter, for a rejected query.
        subtract: from the counter, for another query.
        alarm_at: the counter's highest value, which raises the alarm.
        start: the counter after a reset.
        policy: one of ``POLICIES``.

    Raises:
        InputError: numbers out of range, or a start that is an alarm.

    Example:
        >>> tripwire = Tripwire(add=6, subtract=1, alarm_at=46, start=26)
        >>> tripwire.alarm_after(np.array([True, False, True, True, True]))
        5
        >>> tripwire.alarm_after(np.array([True, False] * 3)) is None
        True
    """

    add: Annotated[int, Within(low=1, below=_LARGEST)]
    subtract: Annotated[int, Within(low=1, below=_LARGEST)]
    alarm_at: Annotated[int, Within(low=1, below=_LARGEST)]
    start: Annotated[int, Within(low=0)] = 0
    policy: Annotated[str, OneOf("policy of a tripwire", POLICIES)] = "report"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start >= self.alarm_at:
            raise InputError(
                f"Tripwire: start={self.start} must be below alarm_at={self.alarm_at}, or every "
                "reset is an alarm."
            )

    @property
    def reset(self) -> State:
        """The state after a reset."""
        return State(self.start, trusted=self.start == 0)

    def count(self, state: State, rejected: bool) -> State:
        """The state after one more query: the definition of everything here."""
        step = self.add if rejected else -self.subtract
        counter = min(max(state.counter + step, 0), self.alarm_at)
        return State(
            counter, state.trusted or counter == 0, state.alarm or counter == self.alarm_at
        )

    def states(self, rejected: Iterable[bool], state: State | None = None) -> list[State]:
        """The state after each query; ``state`` is the one before (None: a reset)."""
        state = self.reset if state is None else state
        states = []
        for bit in rejected:
            state = self.count(state, bool(bit))
            states.append(state)
        return states

    def full(self, state: State) -> bool:
        """Whether the policy shows the whole response to the query that led to a state.

        Example:
            >>> tripwire = Tripwire(add=6, subtract=1, alarm_at=20, start=2, policy="label-only")
            >>> [tripwire.full(state) for state in tripwire.states([False, False, True])]
            [False, True, True]
        """
        return self.policy == "report" or (state.trusted and not state.alarm)

    def locked(self, state: State) -> bool:
        """Whether the policy shows nothing."""
        return self.policy == "lock" and state.alarm

    def alarm_after(self, rejected: Rejected) -> int | None:
        """Number of queries up to the alarm, from a reset on; None where there is none.

        Args:
            rejected: whether each query was rejected, bool (N,), in the order asked.
        """
        count = int(self.alarms_after(np.asarray(rejected)[None])[0])
        return count or None

    def alarms_after(self, rejected: Rejected, start: int | None = None) -> NDArray[np.int64]:
        """The same of many users: int64 (users,), 0 where there is no alarm.

        Args:
            rejected: bool (users, N).
            start: the counter before the first query; None: that of a reset.

        Raises:
            InputError: not a matrix of truth values.

        Example:
            >>> tripwire = Tripwire(add=2, subtract=1, alarm_at=4)
            >>> tripwire.alarms_after(np.array([[True, True, False], [True, False, True]]))
            array([2, 0])
        """
        rejected = np.asarray(rejected)
        if rejected.ndim != 2 or rejected.dtype != np.bool_:
            raise InputError(
                "rejected must be truth values of shape (users, queries), but came as "
                f"{rejected.dtype} of shape {rejected.shape}."
            )
        counters = np.full(len(rejected), self.start if start is None else start, np.int32)
        alarms = np.zeros(len(rejected), np.int64)
        for query, bits in enumerate(rejected.T, start=1):
            self.advance(counters, bits)
            alarms[(counters == self.alarm_at) & (alarms == 0)] = query
        return alarms

    def advance(self, counters: NDArray[np.int32], rejected: Rejected) -> None:
        """Count one more query of many users, in place: counters int32 (users,), bool (users,)."""
        counters += np.where(rejected, np.int32(self.add), np.int32(-self.subtract))
        np.clip(counters, 0, self.alarm_at, out=counters)

    def exponent(self, rate: float) -> float:
        """The exponent r of the module's bound for a rejection rate; 0 where the counter rises.

        Example:
            >>> tripwire = Tripwire(add=1, subtract=1, alarm_at=9)
            >>> round(tripwire.exponent(0.1), 6) == round(math.log(9), 6)
            True
        """
        if not 0 < rate < 1:
            raise InputError(f"a rejection rate must be above 0 and below 1, but is {rate!r}.")
        if rate * self.add >= (1 - rate) * self.subtract:
            return 0.0

        def excess(r: float) -> float:
            return (
                math.log(rate)
                + r * self.add
                + math.log1p((1 - rate) / rate * math.exp(-r * (self.add + self.subtract)))
            )

        # Negative just above 0, where the drift is; positive where rate * exp(r * add) is 1.
        highest = -math.log(rate) / self.add
        lowest = highest
        while excess(lowest) > 0:
            lowest /= 2
        return float(brentq(excess, lowest, highest, xtol=1e-12))

    def false_alarm_bound(self, rate: float, queries: int = LIFETIME) -> float:
        """Upper bound of the chance that a user raises an alarm within so many queries.

        Args:
            rate: the highest probability with which a query of the user is rejected.
            queries: number of queries of the user.

        Example:
            >>> tripwire = Tripwire(add=6, subtract=1, alarm_at=46, start=26)
            >>> tripwire.false_alarm_bound(0.02, 10_000) < 1e-4
            True
        """
        r = self.exponent(rate)
        from_start = math.exp(-r * (self.alarm_at - self.start))
        from_floor = queries * rate * math.exp(-r * max(0, self.alarm_at - self.add))
        return min(1.0, from_start + from_floor)

    def alarm_probability(self, rate: float, queries: int, start: int | None = None) -> float:
        """The exact chance of an alarm within so many queries, each rejected at ``rate``.

        Args:
            rate: probability with which each query is rejected, independently.
            queries: number of them.
            start: the counter before the first one; None: that of a reset.

        Example:
            >>> Tripwire(add=1, subtract=1, alarm_at=2).alarm_probability(0.5, 3)
            0.375
        """
        levels = np.arange(self.alarm_at + 1)
        chain = np.zeros((self.alarm_at + 1, self.alarm_at + 1))
        np.add.at(chain, (levels, np.minimum(levels + self.add, self.alarm_at)), rate)
        np.add.at(chain, (levels, np.maximum(levels - self.subtract, 0)), 1 - rate)
        chain[-1] = 0
        chain[-1, -1] = 1
        after = np.linalg.matrix_power(chain, queries)
        return float(after[self.start if start is None else start, -1])

    def padding(self, rate: float) -> float:
        """Accepted queries that hide one query of a pool: the price of never raising the alarm.

        Without an alarm the counter's ups are paid by its downs, so whatever the order, a pool of
        which ``rate`` is rejected costs as many accepted queries beside each of its own, in the
        long run.

        Example:
            >>> Tripwire(add=6, subtract=1, alarm_at=46, start=26).padding(0.5)
            2.5
        """
        return max(0.0, (rate * self.add - (1 - rate) * self.subtract) / self.subtract)

    def unnoticed(self, start: int | None = None) -> int:
        """Rejected queries that never raise an alarm, from a reset (None) or another counter.

        Example:
            >>> Tripwire(add=6, subtract=1, alarm_at=46, start=26).unnoticed()
            3
        """
        room = self.alarm_at - (self.start if start is None else start)
        return -(-room // self.add) - 1


def design_tripwire(
    p0: float, p1: float, alpha: float, lifetime: int = LIFETIME, policy: str = "report"
) -> Tripwire:
    """The tripwire of two rejection rates and a bound of false alarms.

    Args:
        p0: the highest rejection rate of an honest user, see
            :func:`divqat_brevitas.extraction.detection.trials.honest_rate`.
        p1: the rejection rate of an attacker that should be noticed soon.
        alpha: bound of the chance that an honest user ever raises an alarm: half for the queries
            before trust is earned, half for ``lifetime`` queries in all.
        lifetime: number of queries of an honest user.
        policy: one of ``POLICIES``.

    Raises:
        InputError: rates or a bound outside 0 to 1, p1 not above p0, or an unknown policy.

    Example:
        >>> design_tripwire(0.02, 0.4, 1e-4)
        Tripwire(add=6, subtract=1, alarm_at=46, start=26, policy='report')
    """
    for name, value in (("p0", p0), ("p1", p1), ("alpha", alpha)):
        if not 0 < value < 1:
            raise InputError(f"{name} must be above 0 and below 1, but is {value!r}.")
    if p1 <= p0:
        raise InputError(
            f"p1={p1} must be above p0={p0}: a tripwire distinguishes the two rejection rates."
        )
    if lifetime < 1:
        raise InputError(f"lifetime must be at least 1 query, but is {lifetime!r}.")
    up, down = math.log(p1 / p0), math.log((1 - p0) / (1 - p1))
    if up >= down:
        ratio = Fraction(up / down).limit_denominator(_DENOMINATOR)
    else:
        ratio = 1 / Fraction(down / up).limit_denominator(_DENOMINATOR)
    add, subtract = ratio.numerator, ratio.denominator
    r = Tripwire(add=add, subtract=subtract, alarm_at=1).exponent(p0)
    if r == 0:
        raise InputError(
            f"p0={p0} and p1={p1} are too close for small integer weights: choose a higher p1."
        )
    # Half of alpha for each term of the bound.
    room = math.ceil(math.log(2 / alpha) / r)
    above_floor = math.ceil(math.log(max(2 * lifetime * p0 / alpha, 1)) / r)
    alarm_at = max(room, add + above_floor)
    return Tripwire(
        add=add, subtract=subtract, alarm_at=alarm_at, start=alarm_at - room, policy=policy
    )

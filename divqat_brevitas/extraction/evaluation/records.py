"""Rows of ``report/results.json``: one an attack.

What follows from them, the worst case and the differences, is
:mod:`divqat_brevitas.extraction.evaluation.summary`'s.
"""

from dataclasses import dataclass
from typing import Protocol, get_args

from divqat_brevitas.data.pools import PoolKind
from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.extraction.defences.catalogue import check_defence_name
from divqat_brevitas.extraction.query.oracles import ORACLES


@dataclass(frozen=True, kw_only=True)
class AttackRow:
    """One attack: a checked row of "attacks" in ``results.json``.

    Attributes:
        victim: variant of the victim: "float", "ptq", "qat", "divqat", ...
        victim_seed: seed that the victim was trained with.
        engine: what computed the responses: "integer", "torch", ...
        oracle: what the victim shows.
        defence: what perturbs the responses, as ``Victim.defence`` names it: "none",
            "reverse-sigmoid:0.5", "dcp:0.7+rounding:2".
        attack: name of the attack, such as "knockoff-random".
        treatment: name of the learner; the field's name is fixed by schema 1.
        pool: name of the query pool.
        pool_kind: "in" (in-distribution), "out" (out-of-distribution) or "free" (data-free).
        budget: number of queries allowed.
        queries_used: number of queries asked.
        surrogate: the clone's network.
        seed: of the attack.
        clone_accuracy: accuracy of the clone on the victim's test set, a fraction of 1.
        agreement: share of the test set on which clone and victim give one label.

    Raises:
        InputError: an unknown name, more queries than the budget, or an accuracy outside [0, 1].
    """

    victim: str
    victim_seed: int
    engine: str
    oracle: str
    defence: str = "none"
    attack: str
    treatment: str
    pool: str
    pool_kind: PoolKind
    budget: int
    queries_used: int
    surrogate: str
    seed: int
    clone_accuracy: float
    agreement: float

    def __post_init__(self) -> None:
        for kind, name, allowed in (
            ("oracle", self.oracle, tuple(ORACLES)),
            ("pool kind", self.pool_kind, get_args(PoolKind)),
        ):
            if name not in allowed:
                raise unknown_name(kind, name, allowed)
        check_defence_name(self.defence)
        if not 0 <= self.queries_used <= self.budget:
            raise InputError(
                f"{self.queries_used} queries used do not fit a budget of {self.budget}."
            )
        for field in ("clone_accuracy", "agreement"):
            value = float(getattr(self, field))
            # Written so that NaN fails it too.
            if not 0 <= value <= 1:
                raise InputError(f"{field} must be a fraction of 1, but is {value}.")
            object.__setattr__(self, field, value)


class Experiment(Protocol):
    """The fields of one attack's result that the evaluation reads; see :class:`AttackRow`."""

    @property
    def victim(self) -> str: ...  # noqa: D102
    @property
    def victim_seed(self) -> int: ...  # noqa: D102
    @property
    def engine(self) -> str: ...  # noqa: D102
    @property
    def oracle(self) -> str: ...  # noqa: D102
    @property
    def defence(self) -> str | None: ...  # noqa: D102
    @property
    def attack(self) -> str: ...  # noqa: D102
    @property
    def treatment(self) -> str | None: ...  # noqa: D102
    @property
    def pool(self) -> str | None: ...  # noqa: D102
    @property
    def pool_kind(self) -> str: ...  # noqa: D102
    @property
    def budget(self) -> int: ...  # noqa: D102
    @property
    def surrogate(self) -> str: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def clone_accuracy(self) -> float: ...  # noqa: D102


class Trained(Protocol):
    """One trained victim."""

    @property
    def variant(self) -> str: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def accuracy(self) -> float: ...  # noqa: D102
    @property
    def accuracy_engine(self) -> float | None: ...  # noqa: D102

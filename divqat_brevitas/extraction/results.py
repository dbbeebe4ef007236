"""Rows of ``report/results.json``: one an attack.

What follows from them, the worst case and the differences, is
:mod:`divqat_brevitas.extraction.evaluation`'s.
"""

from typing import Literal, Protocol, TypedDict, get_args

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.extraction.defences.catalogue import check_defence_name
from divqat_brevitas.extraction.oracles import ORACLES

PoolKind = Literal["in", "out", "free"]


class AttackRow(TypedDict):
    """One attack; accuracies are fractions of 1."""

    victim: str
    victim_seed: int
    engine: str
    oracle: str
    defence: str
    attack: str
    treatment: str
    pool: str
    pool_kind: str
    budget: int
    queries_used: int
    surrogate: str
    seed: int
    clone_accuracy: float
    agreement: float


class Experiment(Protocol):
    """One attack's result, as :func:`divqat_brevitas.extraction.results.attack_row` lists it."""

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


def attack_row(
    *,
    victim: str,
    victim_seed: int,
    engine: str,
    oracle: str,
    defence: str = "none",
    attack: str,
    treatment: str,
    pool: str,
    pool_kind: PoolKind,
    budget: int,
    queries_used: int,
    surrogate: str,
    seed: int,
    clone_accuracy: float,
    agreement: float,
) -> AttackRow:
    """A checked row of "attacks" in results.json.

    Args:
        victim: variant of the victim: "float", "ptq", "qat", "divqat", ...
        victim_seed: seed the victim was trained with.
        engine: what answered the queries: "integer", "torch", ...
        oracle: what the answers were.
        defence: what perturbed them, as ``Victim.defence`` names it: "none",
            "reverse-sigmoid:0.5", "dcp:0.7+rounding:2".
        attack: name of the attack, as ``KnockoffNets.name``.
        treatment: of the answers.
        pool: name of the query pool.
        pool_kind: "in" (the victim's distribution), "out" (another) or "free" (no real images).
        budget: queries allowed.
        queries_used: queries asked.
        surrogate: the clone's network.
        seed: of the attack.
        clone_accuracy: of the clone on the victim's test set.
        agreement: of clone and victim on it.

    Raises:
        InputError: an unknown name, more queries than the budget, or an accuracy outside [0, 1].
    """
    for kind, name, known in (
        ("oracle", oracle, tuple(ORACLES)),
        ("pool kind", pool_kind, get_args(PoolKind)),
    ):
        if name not in known:
            raise unknown_name(kind, name, known)
    check_defence_name(defence)
    if not 0 <= queries_used <= budget:
        raise InputError(f"{queries_used} queries used do not fit a budget of {budget}.")
    for field, value in (("clone_accuracy", clone_accuracy), ("agreement", agreement)):
        # Written so that NaN fails it too.
        if not 0 <= value <= 1:
            raise InputError(f"{field} must be a fraction of 1, but is {value}.")
    return AttackRow(
        victim=victim,
        victim_seed=victim_seed,
        engine=engine,
        oracle=oracle,
        defence=defence,
        attack=attack,
        treatment=treatment,
        pool=pool,
        pool_kind=pool_kind,
        budget=budget,
        queries_used=queries_used,
        surrogate=surrogate,
        seed=seed,
        clone_accuracy=float(clone_accuracy),
        agreement=float(agreement),
    )

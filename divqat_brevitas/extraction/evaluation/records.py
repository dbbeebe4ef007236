"""Rows of ``report/results.json``: one an attack.

What follows from them, the worst case and the differences, is
:mod:`divqat_brevitas.extraction.evaluation.summary`'s.
"""

from typing import Any, Protocol, get_args

from pydantic import BaseModel, ConfigDict

from divqat_brevitas.data.pools import PoolKind
from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.extraction.defences.catalogue import check_defence_name
from divqat_brevitas.extraction.oracles import ORACLES


class AttackFields(BaseModel):
    """The fields of one attack: of a row in results, and of a benchmark's experiment.

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
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    victim: str
    victim_seed: int
    engine: str
    oracle: str
    defence: str | None = "none"
    attack: str
    treatment: str | None
    pool: str | None
    pool_kind: PoolKind
    budget: int
    queries_used: int
    surrogate: str
    seed: int
    clone_accuracy: float
    agreement: float | None


class AttackRow(AttackFields):
    """One attack: a checked row of "attacks" in ``results.json``.

    Raises:
        InputError: an unknown name, more queries than the budget, or an accuracy outside [0, 1].
    """

    def __init__(self, **fields: Any) -> None:
        for kind, name, allowed in (
            ("oracle", fields["oracle"], tuple(ORACLES)),
            ("pool kind", fields["pool_kind"], get_args(PoolKind)),
        ):
            if name not in allowed:
                raise unknown_name(kind, name, allowed)
        check_defence_name(fields.get("defence", "none"))
        used, budget = fields["queries_used"], fields["budget"]
        if not 0 <= used <= budget:
            raise InputError(f"{used} queries used do not fit a budget of {budget}.")
        for field in ("clone_accuracy", "agreement"):
            # Written so that NaN fails it too.
            if not 0 <= fields[field] <= 1:
                raise InputError(f"{field} must be a fraction of 1, but is {fields[field]}.")
        super().__init__(**fields)


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

"""What all attacks share: the contract, the spending of queries, the result."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Labels, Responses, substream, to_float
from divqat_brevitas.extraction.learners.base import Learner, TransferSet, described
from divqat_brevitas.extraction.learners.targets import as_probabilities
from divqat_brevitas.extraction.query.victim import BudgetExceededError, Victim
from divqat_brevitas.extraction.surrogates.training import Epoch
from divqat_brevitas.input_range import UNIT
from divqat_brevitas.short_repr import ShortRepr

QUERY_BATCH = 1000

Round = dict[str, Any]


class ImagePool(Protocol):
    """Anything with pool images, such as ``divqat_brevitas.data.QueryPool``."""

    @property
    def images(self) -> NDArray[Any]:
        """uint8 or float32 (N, C, H, W)."""
        ...


@dataclass(frozen=True)
class Result(ShortRepr):
    """What an attack brought home.

    Attributes:
        clone: the trained surrogate, in eval mode.
        queries_used: queries this attack asked; fewer than its budget if the pool was smaller.
        history: the clone's training, a row an epoch (see ``train_surrogate``).
        rounds: what happened along the way, for attacks that choose or make queries in rounds.
        indices: of the asked images in the pool, in the order asked, int64 (queries_used,);
            empty for attacks that make their own images.
        settings: the attack's hyper-parameters and what it met (oracle, budget, pool size);
            plain values that JSON can hold.
    """

    clone: nn.Module
    queries_used: int
    history: list[Epoch]
    rounds: list[Round]
    indices: Labels
    settings: dict[str, Any]


class Attack(Protocol):
    """An extraction attack with its hyper-parameters."""

    @property
    def name(self) -> str:
        """What results call it under "attack", such as "knockoff-random"."""
        ...

    def run(
        self,
        victim: Victim,
        pool: Any,
        budget: int | None = None,
    ) -> Result:
        """Spend at most ``budget`` queries (None: all that are left) and bring home a clone.

        ``pool`` is the attacker's images, an :class:`ImagePool` or an array; for a data-free attack
        the (C, H, W) of an image alone.
        """
        ...


@dataclass(frozen=True)
class PoolQueries(ShortRepr):
    """The answered images of a pool.

    Attributes:
        indices: of the asked images in the pool, in the order asked, int64 (N,).
        responses: on the scale of probabilities, float32 (N, classes).
        rounds: see :class:`Result`.
    """

    indices: Labels
    responses: Responses
    rounds: list[Round] = field(default_factory=list)


def allowance(victim: Victim, budget: int | None) -> int:
    """The queries an attack may spend.

    Raises:
        BudgetExceededError: the victim has fewer left than ``budget``, or none.
        InputError: the victim takes other inputs than images in [0, 1], which attacks ask.
    """
    if victim.input_range not in (None, UNIT):
        raise InputError(
            f"attacks ask images in [0, 1], but this victim takes inputs in {victim.input_range}. "
            "Attack a predictor that scales images of [0, 1] to that range before it calls the "
            "victim's model."
        )
    wanted = victim.remaining if budget is None else budget
    if wanted > victim.remaining or victim.remaining == 0:
        raise BudgetExceededError(
            f"the attack may ask {wanted} queries, but the victim has {victim.remaining} of "
            f"{victim.budget} left. Give the attack a victim of its own."
        )
    return wanted


def ask(victim: Victim, images: NDArray[Any]) -> Responses:
    """Responses to ``images`` (uint8 or float32), on the scale of probabilities, in batches."""
    parts = [
        as_probabilities(victim.query(to_float(images[i : i + QUERY_BATCH])), victim.oracle)
        for i in range(0, len(images), QUERY_BATCH)
    ]
    return np.concatenate(parts)


def deliver(
    learner: Learner,
    transfer_set: TransferSet,
    *,
    seed: int,
    queries_used: int,
    settings: dict[str, Any],
    indices: Labels | None = None,
    rounds: list[Round] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Result:
    """Let the learner make the clone, and pack the result.

    Args:
        learner: makes the clone.
        transfer_set: what it learns from.
        seed: of the attack; the clone's own seed is derived from it.
        queries_used: queries the attack asked.
        settings: of the attack and what it met; the learner's are added as "learner", with what
            it found or chose along the way, if anything, under "notes".
        indices: see :class:`Result`.
        rounds: see :class:`Result`.
        on_epoch: called with each row of the history as it is made.
    """
    learned = learner.learn(transfer_set, clone_seed(seed), on_epoch)
    about = described(learner)
    if learned.notes:
        about["notes"] = learned.notes
    return Result(
        learned.clone,
        queries_used,
        learned.history,
        rounds or [],
        np.zeros(0, np.int64) if indices is None else indices,
        settings | {"learner": about},
    )


def clone_seed(seed: int) -> int:
    """The seed of the clone of an attack with ``seed``."""
    return int(substream(seed, "clone").integers(2**31))


def met(victim: Victim, budget: int) -> dict[str, Any]:
    """What an attack met, for its settings: oracle, defence (with its numbers), budget."""
    return {
        "oracle": victim.oracle,
        "oracle_options": victim.options,
        "defence": victim.defence,
        "defence_settings": dict(victim.defence_settings),
        "budget": budget,
    }

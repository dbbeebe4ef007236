"""The victim as a thief sees it: images in, the oracle's answers out, every image counted."""

import hashlib
import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.extraction.arrays import Answers, Images, check_images, check_logits
from divqat_brevitas.extraction.oracles import make_oracle
from divqat_brevitas.extraction.predictor import Predictor, as_predictor
from divqat_brevitas.files import write_text

DEFENCES = ("none",)
"""Defences applied to the answers; a defence trained into the victim's weights is not one."""


class BudgetExceededError(InputError):
    """A batch would take more queries than are left; nothing was asked or counted."""


@dataclass(frozen=True)
class LedgerRow:
    """One answered batch.

    Attributes:
        batch: index of the batch, from 0.
        images: queries in it (one image is one query).
        cumulative: queries answered up to and with this batch.
        sha256: of the images' float32 bytes in C order, hexadecimal.
    """

    batch: int
    images: int
    cumulative: int
    sha256: str


class Victim:
    """A model behind an oracle, with a query budget and a ledger.

    One image is one query, asked before or not. A batch that does not fit the budget is refused
    whole before the model sees it, and a batch that the model fails on is not counted. Threads
    may share a victim: batches are answered one at a time.

    Args:
        predictor: the model under attack: a :class:`Predictor` or a torch module.
        oracle: what it shows, see :mod:`divqat_brevitas.extraction.oracles`.
        budget: queries it answers, at least 0.
        defence: what perturbs the answers; only "none" so far.
        **options: of the oracle: ``k`` for "topk", ``decimals`` for "rounded".

    Raises:
        InputError: unknown oracle, defence or option, or a negative budget.

    Example:
        >>> import numpy as np
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> victim = Victim(model, oracle="top1", budget=100)
        >>> victim.query(np.zeros((3, 1, 8, 8), np.float32)).sum()
        np.float32(3.0)
        >>> victim.remaining
        97
    """

    def __init__(
        self,
        predictor: Predictor | nn.Module,
        oracle: str = "soft",
        budget: int = 5000,
        defence: str = "none",
        **options: int,
    ) -> None:
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
            raise InputError(f"budget must be a whole number of at least 0, but is {budget!r}.")
        if defence not in DEFENCES:
            raise unknown_name("defence", defence, DEFENCES)
        self.oracle = oracle
        self.options = dict(options)
        self.defence = defence
        self.budget = budget
        self._predictor = as_predictor(predictor)
        self._answer = make_oracle(oracle, **options)
        self._lock = threading.Lock()
        self._rows: list[LedgerRow] = []
        self._shape: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        options = "".join(f", {k}={v}" for k, v in self.options.items())
        return (
            f"Victim(oracle={self.oracle!r}{options}, defence={self.defence!r}, "
            f"queries={self.queries_used}/{self.budget})"
        )

    def query(self, images: Images) -> Answers:
        """The oracle's answers, float32 (N, classes), to images, float32 NCHW in [0, 1].

        Raises:
            BudgetExceededError: fewer than N queries are left.
            InputError: bad images (dtype, shape, range, NaN), another image shape than the
                batches before, or a model that answers with something else than finite logits.
        """
        images = check_images(images, "queried images")
        with self._lock:
            if len(images) > self.remaining:
                raise BudgetExceededError(
                    f"{len(images)} more queries do not fit: {self.queries_used} of "
                    f"{self.budget} are used. Ask fewer images or raise the budget."
                )
            if self._shape not in (None, images.shape[1:]):
                raise InputError(
                    f"queried images have shape {images.shape[1:]}, but this victim has "
                    f"answered images of shape {self._shape}."
                )
            logits = check_logits(
                self._predictor.predict(images), len(images), "the victim's predictions"
            )
            answers = self._answer(logits)
            self._shape = images.shape[1:]
            self._rows.append(
                LedgerRow(
                    batch=len(self._rows),
                    images=len(images),
                    cumulative=self.queries_used + len(images),
                    sha256=hashlib.sha256(images.tobytes()).hexdigest(),
                )
            )
        return answers

    @property
    def ledger(self) -> tuple[LedgerRow, ...]:
        """The answered batches so far, in order."""
        return tuple(self._rows)

    @property
    def queries_used(self) -> int:
        """Images answered so far."""
        return self._rows[-1].cumulative if self._rows else 0

    @property
    def remaining(self) -> int:
        """Images that may still be asked."""
        return self.budget - self.queries_used

    def write_ledger(self, path: Path) -> None:
        """Write the ledger as JSON Lines, one object a batch, whole or not at all."""
        write_text(path, "".join(json.dumps(asdict(row)) + "\n" for row in self.ledger))

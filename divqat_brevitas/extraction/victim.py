"""The victim behind its interface: images in, the oracle's responses out, each image counted."""

import hashlib
import threading
from dataclasses import dataclass

import numpy as np
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Images, Responses, check_images
from divqat_brevitas.extraction.defences.base import Defence, defended_logits
from divqat_brevitas.extraction.defences.catalogue import make_defence
from divqat_brevitas.extraction.oracles import Outputs, make_oracle
from divqat_brevitas.extraction.predictor import Predictor, as_predictor
from divqat_brevitas.input_range import InputRange


class BudgetExceededError(InputError):
    """A batch has more images than queries are left; nothing was asked or counted."""


@dataclass(frozen=True)
class LedgerRow:
    """One answered batch.

    Attributes:
        batch: index of the batch, from 0.
        images: number of queries in it (one image is one query).
        cumulative: number of queries up to and with this batch.
        sha256: hash of the images' float32 bytes in C order, hexadecimal.
    """

    batch: int
    images: int
    cumulative: int
    sha256: str


class Victim:
    """A model behind an oracle, with a query budget and a ledger.

    One image is one query, also where it was asked before. A batch that does not fit the budget is
    refused as a whole, before the model gets it; a batch on which the model fails is not counted.
    Threads may share a victim: it answers one batch at a time.

    Args:
        predictor: the model under attack: a :class:`Predictor` or a torch module.
        oracle: what the victim shows, see :mod:`divqat_brevitas.extraction.oracles`.
        budget: number of queries that it answers, at least 0.
        defence: perturbs the probabilities before the oracle shows them: a :class:`Defence`, or a
            spec such as "rounding:1" or "dcp:0.7+top1" (see :func:`make_defence`). With "none" the
            oracle gets the network's own logits.
        cache: return the same response to the same image, so that repeats cannot average out a
            randomised defence. Images that differ in one bit are different images. A cached
            response counts as a query.
        outputs: what the predictor returns, "logits" or "probabilities" (a network that ends in a
            softmax, a service). Probabilities cannot be shown as logits; undeclared probabilities
            are recognised and refused, see :mod:`divqat_brevitas.extraction.oracles`.
        **options: of the oracle: ``k`` for "topk", ``decimals`` for "rounded".

    Raises:
        InputError: unknown oracle, defence, option or outputs, a defence that needs material, a
            negative budget, or logits asked of probabilities.

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
        defence: Defence | str = "none",
        cache: bool = False,
        outputs: str = "logits",
        **options: int,
    ) -> None:
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
            raise InputError(f"budget must be a whole number of at least 0, but is {budget!r}.")
        applied = make_defence(defence) if isinstance(defence, str) else defence
        self.oracle = oracle
        self.options = dict(options)
        self.defence = applied.name
        self.defence_settings = applied.settings
        self.budget = budget
        model = as_predictor(predictor)
        self._outputs = Outputs(model, outputs)
        # None: the predictor declares no range and takes images in [0, 1].
        self.input_range: InputRange | None = getattr(model, "input_range", None)
        if (oracle, outputs) == ("logits", "probabilities"):
            raise InputError(
                "a victim that returns probabilities has no logits to show: choose the oracle "
                "soft, topk, rounded or top1."
            )
        self._show = make_oracle(oracle, **options)
        self._defence = None if applied.name == "none" else applied
        self._remembered: dict[bytes, Responses] | None = {} if cache else None
        self._lock = threading.Lock()
        self._rows: list[LedgerRow] = []
        self._shape: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        options = "".join(f", {k}={v}" for k, v in self.options.items())
        cache = "" if self._remembered is None else ", cache=True"
        return (
            f"Victim(oracle={self.oracle!r}{options}, defence={self.defence!r}{cache}, "
            f"queries={self.queries_used}/{self.budget})"
        )

    def query(self, images: Images) -> Responses:
        """The oracle's responses, float32 (N, classes), to images, float32 NCHW in [0, 1].

        Where the predictor declares another ``input_range``, inputs are (N, ...) in that range.

        Raises:
            BudgetExceededError: fewer than N queries are left.
            InputError: bad images (dtype, shape, range, NaN), another image shape than in earlier
                batches, a model that returns something else than finite logits (or than
                probabilities, where these are declared), or a defence that returns something else
                than distributions.
        """
        images = check_images(images, "queried images", self.input_range)
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
            if self._remembered is None:
                responses = self._fresh(images)
            else:
                responses = self._recall(images, self._remembered)
            self._shape = images.shape[1:]
            self._rows.append(
                LedgerRow(
                    batch=len(self._rows),
                    images=len(images),
                    cumulative=self.queries_used + len(images),
                    sha256=hashlib.sha256(images.tobytes()).hexdigest(),
                )
            )
        return responses

    def _fresh(self, images: Images) -> Responses:
        """Responses computed by the network."""
        logits = self._outputs.logits(images)
        if self._defence is None:
            return self._show(logits)
        return self._show(defended_logits(self._defence, images, logits))

    def _recall(self, images: Images, remembered: dict[bytes, Responses]) -> Responses:
        """Responses from the cache; the network computes the missing ones, each once."""
        keys = [hashlib.sha256(image.tobytes()).digest() for image in images]
        new = {key: i for i, key in enumerate(keys) if key not in remembered}
        if new:
            fresh = self._fresh(images[list(new.values())])
            # Copies: the attacker may write into the returned array.
            remembered.update({key: row.copy() for key, row in zip(new, fresh, strict=True)})
        return np.stack([remembered[key] for key in keys])

    @property
    def ledger(self) -> tuple[LedgerRow, ...]:
        """The answered batches, in order."""
        return tuple(self._rows)

    @property
    def queries_used(self) -> int:
        """Number of queries so far."""
        return self._rows[-1].cumulative if self._rows else 0

    @property
    def remaining(self) -> int:
        """Number of queries that are left."""
        return self.budget - self.queries_used

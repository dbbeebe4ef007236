"""Recovery: map defended responses back to undefended ones, then learn from these.

An attacker that knows the defence applies it to undefended responses of its own: those of a shadow
network, trained on the data that it has, or draws from a prior over responses, which need no
network. Each shadow pair is one defended and one undefended response. Two maps are fitted on such
pairs: a small network (D-DAE: Chen et al., "D-DAE: Defense-Penetrating Model Extraction Attacks",
IEEE S&P 2023) and a nearest-pairs estimate (partial Bayes, pBayes: Tang et al., "ModelGuard",
USENIX Security 2024, whose D-DAE+ and pBayes draw from a prior and whose D-DAE uses shadow
networks). They map each response by itself and cannot recover information that it does not contain.

Deviations: the network is ModelGuard's version of D-DAE's restorer (two layers of 64 units, soft
cross-entropy, Adam). Its inputs are logarithms and probabilities, because a perturbed tail shows in
the logarithms, and it learns what to add to the defended response's logarithm, so that few pairs
keep its order. The prior is a Dirichlet distribution with all parameters 1/classes, with 5,000
draws instead of ModelGuard's million and without its factor of concentration; each draw stands for
one of the queried images, because some defences read the image. pBayes looks at all pairs instead
of those with the same label, so that it also covers defences that change labels.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from divqat_brevitas.errors import CheckedSettings, InputError, Within
from divqat_brevitas.extraction.arrays import Responses, check_images, substream, to_float
from divqat_brevitas.extraction.defences.base import Defence, defended_logits
from divqat_brevitas.extraction.learners.base import TrainedClone, TransferSet, WrappingLearner
from divqat_brevitas.extraction.learners.targets import as_probabilities
from divqat_brevitas.extraction.oracles import log_probabilities, make_oracle, softmax
from divqat_brevitas.extraction.predictor import Predictor, as_predictor
from divqat_brevitas.extraction.surrogates.training import OnEpoch, soft_cross_entropy
from divqat_brevitas.short_repr import ShortRepr


@dataclass(frozen=True)
class ShadowPairs(ShortRepr):
    """Defended and undefended responses of the same queries.

    Attributes:
        defended: as the oracle shows them, on the scale of probabilities, float32 (N, classes).
        undefended: float32 (N, classes).

    Raises:
        InputError: arrays of other shapes, or fewer than 2 rows.
    """

    defended: Responses
    undefended: Responses

    def __post_init__(self) -> None:
        if self.defended.ndim != 2 or self.defended.shape != self.undefended.shape:
            raise InputError(
                f"shadow pairs need two arrays (N, classes) of one shape, but got "
                f"{self.defended.shape} and {self.undefended.shape}."
            )
        if len(self.defended) < 2:
            raise InputError("shadow pairs need at least 2 rows.")

    @classmethod
    def of_models(
        cls,
        defended: Predictor | nn.Module,
        undefended: Predictor | nn.Module,
        images: NDArray[Any],
        oracle: str = "soft",
        **options: int,
    ) -> "ShadowPairs":
        """The responses of two shadow networks to the same images.

        Args:
            defended: a network with the defence in its weights, or the undefended one behind a
                defence of the responses (``DefendedPredictor``).
            undefended: a network without the defence.
            images: the attacker's images, uint8 or float32 in [0, 1], (N, C, H, W).
            oracle: how the victim shows responses.
            **options: of the oracle.

        Raises:
            InputError: bad images or an unknown oracle.
        """
        show = make_oracle(oracle, **options)
        batch = check_images(to_float(images), "shadow images")
        responses = as_probabilities(show(as_predictor(defended).predict(batch)), oracle)
        return cls(responses, softmax(as_predictor(undefended).predict(batch)))

    @classmethod
    def of_prior(
        cls,
        defence: Defence,
        images: NDArray[Any],
        classes: int,
        seed: int,
        oracle: str = "soft",
        count: int = 5000,
    ) -> "ShadowPairs":
        """Draws from a Dirichlet distribution, before and behind a defence.

        Args:
            defence: it gets the draws as responses to ``images``, one after the other.
            images: uint8 or float32 in [0, 1], (N, C, H, W).
            classes: number of classes.
            seed: of the draws.
            oracle: how the victim shows responses.
            count: number of draws, at least 2.
        """
        alpha = np.full(classes, 1 / classes)
        clean = substream(seed, "prior").dirichlet(alpha, count).astype(np.float32)
        show = make_oracle(oracle)
        parts = []
        for i in range(0, count, _CHUNK):
            rows = np.arange(i, min(i + _CHUNK, count))
            asked = to_float(images[rows % len(images)])
            logits = defended_logits(defence, asked, log_probabilities(clean[rows]))
            parts.append(as_probabilities(show(logits), oracle))
        return cls(np.concatenate(parts), clean)


HIDDEN = 64
FLOOR = 1e-6
_CHUNK = 256


class ResponseRecovery(Protocol):
    """Estimates undefended responses."""

    @property
    def name(self) -> str:
        """The name in results."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """Its parameters, as values that JSON can hold."""
        ...

    def recover(self, responses: Responses) -> Responses:
        """Estimates, float32 (N, classes), rows of sum 1, of the responses behind ``responses``."""
        ...


def _inputs(responses: Responses) -> Tensor:
    p = torch.from_numpy(np.ascontiguousarray(responses, np.float32))
    return torch.cat([p, p.clamp_min(FLOOR).log() / -float(np.log(FLOOR)) + 1], dim=1)


class _Restorer(nn.Module):
    """Logits of the undefended response: the defended one's, scaled, plus a correction."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.scale = nn.Parameter(torch.ones(1))
        self.correction = nn.Sequential(
            *(nn.Linear(2 * classes, HIDDEN), nn.ReLU()),
            *(nn.Linear(HIDDEN, HIDDEN), nn.ReLU()),
            nn.Linear(HIDDEN, classes),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        logits = -float(np.log(FLOOR)) * inputs[:, self.classes :]
        restored: Tensor = self.scale * logits + self.correction(inputs)
        return restored


class Recovery:
    """A network from defended to undefended responses; :meth:`fit` trains one.

    Example:
        >>> clean = np.random.default_rng(0).dirichlet(np.ones(3), 200).astype(np.float32)
        >>> Recovery.fit(np.sqrt(clean), clean, seed=0, epochs=2).recover(clean).shape
        (200, 3)
    """

    name = "recovery"

    def __init__(self, network: nn.Module, settings: dict[str, Any]) -> None:
        self._network = network.eval()
        self._settings = settings

    @property
    def settings(self) -> dict[str, Any]:
        """How it was fitted."""
        return dict(self._settings)

    @classmethod
    def fit(
        cls,
        defended: Responses,
        undefended: Responses,
        seed: int,
        epochs: int = 50,
        learning_rate: float = 3e-3,
    ) -> "Recovery":
        """Train the network on shadow pairs.

        Args:
            defended: float32 (N, classes), at least 2 rows.
            undefended: float32 (N, classes).
            seed: of initial weights and order; the global random state does not change.
            epochs: passes over the pairs, at least 1.
            learning_rate: of Adam; it falls to zero along a cosine.

        Raises:
            InputError: arrays that do not pair up, or no epoch.
        """
        pairs = ShadowPairs(defended, undefended)
        if epochs < 1:
            raise InputError(f"a recovery is trained for at least 1 epoch, not {epochs}.")
        classes = defended.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(substream(seed, "recovery").integers(2**62)))
            network = _Restorer(classes)
        x, y = _inputs(pairs.defended), torch.from_numpy(pairs.undefended.astype(np.float32))
        generator = torch.Generator().manual_seed(int(substream(seed, "pairs").integers(2**62)))
        steps = -(-len(x) // 128)
        optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * steps)
        for _ in range(epochs):
            for part in torch.randperm(len(x), generator=generator).tensor_split(steps):
                optimizer.zero_grad()
                soft_cross_entropy(network(x[part]), y[part]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        settings = {"pairs": len(x), "epochs": epochs, "learning_rate": learning_rate, "seed": seed}
        return cls(network, settings)

    def recover(self, responses: Responses) -> Responses:
        """See :meth:`ResponseRecovery.recover`."""
        with torch.no_grad():
            logits: Responses = self._network(_inputs(responses)).numpy()
        return softmax(logits)


@dataclass(frozen=True)
class PartialBayes(CheckedSettings):
    """The mean undefended response of the shadow pairs whose defended responses lie nearest.

    Args:
        pairs: the table.
        neighbours: smallest number of pairs to average; the paper's 1 needs a table of a million.
        tolerance: all pairs within this L2 distance count as well (1e-4 in the paper): where a
            defence maps many responses to one, their mean is the estimate.
    """

    pairs: ShadowPairs
    neighbours: Annotated[int, Within(low=1)] = 5
    tolerance: Annotated[float, Within(low=0)] = 1e-4

    name = "bayes"

    @property
    def settings(self) -> dict[str, Any]:
        """Size of the table and the parameters."""
        return {
            "pairs": len(self.pairs.defended),
            "neighbours": self.neighbours,
            "tolerance": self.tolerance,
        }

    def recover(self, responses: Responses) -> Responses:
        """See :meth:`ResponseRecovery.recover`."""
        table = self.pairs.defended.astype(np.float64)
        clean = self.pairs.undefended.astype(np.float64)
        last = min(self.neighbours, len(table)) - 1
        estimates = []
        for i in range(0, len(responses), _CHUNK):
            part = responses[i : i + _CHUNK].astype(np.float64)
            squares = (part**2).sum(1)[:, None] + (table**2).sum(1) - 2 * part @ table.T
            distance = np.sqrt(np.maximum(squares, 0))
            nearest = np.partition(distance, last, axis=1)[:, last]
            near = distance <= np.maximum(nearest, self.tolerance)[:, None]
            estimates.append(near.astype(np.float64) @ clean / near.sum(axis=1, keepdims=True))
        return np.concatenate(estimates).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class RecoveryLearner(WrappingLearner):
    """Recovers the responses, then trains another learner on them.

    Aimed at defences that perturb probabilities by a known rule (reverse sigmoid, MAD, rounding),
    and, with shadow networks, at trained-in ones. An all-zero response stays zero.

    Args:
        recovery: a fitted recovery.
        base: learns from the recovered responses.
    """

    recovery: ResponseRecovery

    @property
    def prefix(self) -> str:
        """The recovery's name, "recovery" or "bayes"."""
        return self.recovery.name

    @property
    def settings(self) -> dict[str, Any]:
        """The recovery's settings, and the base's under "base"."""
        return super().settings | {"recovery": self.recovery.settings}

    def learn(self, transfer_set: TransferSet, seed: int, on_epoch: OnEpoch = None) -> TrainedClone:
        """Train a clone on the recovered responses."""
        informative = transfer_set.responses.sum(axis=1, keepdims=True) > 0
        recovered = np.where(
            informative, self.recovery.recover(transfer_set.responses), np.float32(0)
        )
        learned = self.base.learn(TransferSet(transfer_set.images, recovered), seed, on_epoch)
        changed = np.not_equal(recovered.argmax(axis=1), transfer_set.responses.argmax(axis=1))
        notes = {"labels_changed": int((changed & informative[:, 0]).sum())}
        return TrainedClone(learned.clone, learned.history, learned.notes | notes)


@dataclass(frozen=True, kw_only=True)
class PriorRecoveryLearner(WrappingLearner):
    """Recovers the responses of a known defence with pairs drawn from a prior.

    The pairs are drawn for the queried images, so it needs neither a network nor other data.

    Args:
        known: the defence, an object of the attacker's own.
        oracle: how the victim shows responses.
        bayes: partial Bayes ("pbayes") instead of the network ("ddae+").
        pairs: number of draws.
        base: learns from the recovered responses.

    Example:
        >>> from divqat_brevitas.extraction import PlainLearner
        >>> from divqat_brevitas.extraction.defences import make_defence
        >>> rng = np.random.default_rng(0)
        >>> responses = rng.dirichlet(np.ones(3), 20).astype(np.float32)
        >>> asked = TransferSet(rng.random((20, 1, 8, 8), np.float32), responses)
        >>> learner = PriorRecoveryLearner(
        ...     known=make_defence("rounding:1"),
        ...     bayes=True,
        ...     pairs=50,
        ...     base=PlainLearner(surrogate="mlp", epochs=1),
        ... )
        >>> learner.name, sorted(learner.learn(asked, seed=0).notes)
        ('pbayes', ['labels_changed'])
    """

    known: Defence
    oracle: str = "soft"
    bayes: bool = False
    pairs: Annotated[int, Within(low=2)] = 5000

    @property
    def prefix(self) -> str:
        """Either "pbayes" or "ddae+"."""
        return "pbayes" if self.bayes else "ddae+"

    @property
    def settings(self) -> dict[str, Any]:
        """All arguments, with the defence's name."""
        return super().settings | {"known": self.known.name}

    def learn(self, transfer_set: TransferSet, seed: int, on_epoch: OnEpoch = None) -> TrainedClone:
        """Draw pairs, fit the recovery, and train a clone on the recovered responses."""
        pairs = ShadowPairs.of_prior(
            deepcopy(self.known),  # a randomised defence draws the same numbers each time
            transfer_set.images,
            transfer_set.classes,
            seed,
            self.oracle,
            self.pairs,
        )
        recovery: ResponseRecovery = PartialBayes(pairs)
        if not self.bayes:
            recovery = Recovery.fit(pairs.defended, pairs.undefended, seed)
        learner = RecoveryLearner(recovery=recovery, base=self.base)
        return learner.learn(transfer_set, seed, on_epoch)

"""Correction of a trained clone for the label prior of its transfer set.

Queries from another distribution get some labels far more often than others, and a clone learns
this frequency with everything else. Subtracting tau · log(prior) from its logits removes it
(logit adjustment: Menon et al., "Long-tail Learning via Logit Adjustment", ICLR 2021, sec. 4). It
needs no query, no data and, with a fixed tau, no training.

Deviations: the prior is the clone's mean prediction on its queries, with one more response for each
class, instead of the frequency of training labels. At the optimum of the cross-entropy both are
equal, since the gradient of the last layer's biases is their difference; the mean prediction also
covers learners that filter, recover or replace responses. The paper tunes tau for the balanced
error on labelled images; here it is tuned on responses that are held out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import Within
from divqat_brevitas.extraction.arrays import Responses, to_float
from divqat_brevitas.extraction.learners.base import (
    TrainedClone,
    TransferSet,
    WrappingLearner,
    held_out,
)
from divqat_brevitas.extraction.oracles import softmax
from divqat_brevitas.extraction.predictor import TorchPredictor
from divqat_brevitas.extraction.surrogates.networks import head_of
from divqat_brevitas.extraction.surrogates.training import OnEpoch

TAUS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""The values that are tried where tau is tuned."""


def label_prior(logits: Responses) -> NDArray[np.float64]:
    """Mean prediction with one more response for each class, float64 (classes,), of sum 1.

    Example:
        >>> label_prior(np.array([[9.0, -9.0]] * 8, np.float32)).round(2).tolist()
        [0.9, 0.1]
    """
    sums = softmax(logits).sum(axis=0, dtype=np.float64) + 1
    prior: NDArray[np.float64] = sums / sums.sum()
    return prior


def balanced_agreement(logits: Responses, labels: NDArray[np.int64]) -> float:
    """Mean over the classes among ``labels`` of the share that the logits get right.

    Example:
        >>> logits = np.array([[1, 0], [1, 0], [1, 0], [1, 0]], np.float32)
        >>> balanced_agreement(logits, np.array([0, 0, 0, 1]))
        0.5
    """
    right = logits.argmax(axis=1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


@dataclass(frozen=True, kw_only=True)
class CorrectedLearner(WrappingLearner):
    """Corrects the clone of another learner for the label prior.

    The correction goes into the biases of the clone's last linear layer, so that the clone stays
    the same network. ``TrainedClone.notes`` has "tau" and "prior". An attack with a training of its
    own trains as the base defines, and the clone is corrected at its end.

    A tuned tau has the best balanced agreement (mean over classes) with responses that are held out
    of a first training; the clone is then trained again on all responses. With too few responses
    tau is 1. Where the labels of the responses are wrong, so is what tau is tuned on.

    Args:
        base: trains the clone. To correct for what a learner leaves of the responses, put the
            correction behind it: "filtered-corrected".
        tau: strength of the correction; None: tuned on responses that are held out, which costs a
            second training.
        validation: part of the responses that is held out, in (0, 0.5].

    Example:
        >>> from divqat_brevitas.extraction import PlainLearner
        >>> rng = np.random.default_rng(0)
        >>> images, responses = rng.random((40, 1, 8, 8), np.float32), np.eye(4, dtype=np.float32)
        >>> learner = CorrectedLearner(base=PlainLearner(surrogate="mlp", epochs=1))
        >>> learner.learn(TransferSet(images, responses[np.arange(40) % 4]), seed=0).notes["tau"]
        1.0
    """

    tau: Annotated[float | None, Within(0, 10)] = 1.0
    validation: Annotated[float, Within(above=0, high=0.5)] = 0.2

    @property
    def prefix(self) -> str:
        """Either "corrected" or "corrected:tuned"."""
        return "corrected:tuned" if self.tau is None else "corrected"

    def learn(self, transfer_set: TransferSet, seed: int, on_epoch: OnEpoch = None) -> TrainedClone:
        """Train a clone as the base does, and correct it."""
        return self.correct(
            self.base.learn(transfer_set, seed, on_epoch),
            transfer_set,
            seed,
            lambda part: self.base.learn(part, seed),
        )

    def correct(
        self,
        trained: TrainedClone,
        transfer_set: TransferSet,
        seed: int,
        train: Callable[[TransferSet], TrainedClone],
    ) -> TrainedClone:
        """Correct a clone in place.

        Args:
            trained: the clone.
            transfer_set: what it was trained on.
            seed: of the part that is held out.
            train: trains another clone on a part of the transfer set, where tau is tuned.
        """
        tau = self._tuned(transfer_set, seed, train) if self.tau is None else float(self.tau)
        prior = label_prior(_logits(trained.clone, transfer_set))
        head = trained.clone.get_submodule(head_of(trained.clone))
        assert isinstance(head, nn.Linear)  # every surrogate's is one with biases
        assert head.bias is not None
        with torch.no_grad():
            head.bias.sub_(torch.from_numpy(tau * np.log(prior)).to(head.bias))
        notes: dict[str, Any] = {"tau": tau, "prior": prior.round(4).tolist()}
        return TrainedClone(trained.clone, trained.history, trained.notes | notes)

    def _tuned(
        self, transfer_set: TransferSet, seed: int, train: Callable[[TransferSet], TrainedClone]
    ) -> float:
        parts = held_out(transfer_set, seed, self.validation)
        if parts is None:
            return 1.0
        fit, check = parts
        clone = train(fit).clone
        shift = np.log(label_prior(_logits(clone, fit))).astype(np.float32)
        logits, labels = _logits(clone, check), check.responses.argmax(axis=1)
        # The first of equal values: the weakest correction.
        return max(
            TAUS, key=lambda tau: balanced_agreement(logits - np.float32(tau) * shift, labels)
        )


def _logits(clone: nn.Module, transfer_set: TransferSet) -> Responses:
    return TorchPredictor(clone).predict(to_float(np.asarray(transfer_set.images)))

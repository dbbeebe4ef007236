"""A handful of labelled images of the attacker's own, beside the victim's responses.

They cost no query, and they are the only labels that a victim cannot have changed. They are used
twice. First they show whether the victim permutes its classes: a clone of the responses predicts
them, and the assignment of predicted classes to labels with the most matches (Kuhn, "The Hungarian
Method for the Assignment Problem", 1955) is applied to the responses if it is better than none by
more than chance. Then they join the training set, repeated, as the labelled part of a few-shot
attacker (Jagielski et al., "High Accuracy and High Fidelity Extraction of Neural Networks", USENIX
Security 2020, sec. 5, which has labelled images beside queried ones).

Deviations: the paper's attacker trains with MixMatch; here the labelled images are repeated until
they are a fixed share of the training set. The assignment is not in the paper.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from divqat_brevitas.errors import InputError, Within
from divqat_brevitas.extraction.arrays import Labels, to_float
from divqat_brevitas.extraction.learners.base import TrainedClone, TransferSet, WrappingLearner
from divqat_brevitas.extraction.predictor import TorchPredictor
from divqat_brevitas.extraction.surrogates.training import OnEpoch


@dataclass(frozen=True, kw_only=True)
class LabelledLearner(WrappingLearner):
    """Lets another learner train on the responses and on labelled images.

    ``TrainedClone.notes`` has the "permutation" that was applied, None where it is no better than
    none by two standard errors. It costs about twice as much as the base.

    Args:
        labelled: the attacker's images with their labels, as one-hot responses.
        base: trains the clone.
        share: part of the training set that repeated labelled images make up, in (0, 1).

    Example:
        >>> from divqat_brevitas.extraction import PlainLearner
        >>> rng, one_hot = np.random.default_rng(0), np.eye(2, dtype=np.float32)
        >>> own = TransferSet(rng.random((4, 1, 8, 8), np.float32), one_hot[[0, 1, 0, 1]])
        >>> asked = TransferSet(rng.random((30, 1, 8, 8), np.float32), one_hot[[0, 1] * 15])
        >>> base = PlainLearner(surrogate="mlp", epochs=1)
        >>> learned = LabelledLearner(labelled=own, base=base).learn(asked, seed=0)
        >>> sorted(learned.notes)
        ['permutation']
    """

    labelled: TransferSet = field(repr=False)
    share: Annotated[float, Within(above=0, below=1)] = 0.2

    prefix = "labelled"

    @property
    def settings(self) -> dict[str, Any]:
        """All arguments, with the number of labelled images."""
        return super().settings | {"labelled": len(self.labelled.images)}

    def learn(self, transfer_set: TransferSet, seed: int, on_epoch: OnEpoch = None) -> TrainedClone:
        """Undo a permutation of classes, then train a clone on responses and labels.

        Raises:
            InputError: labelled images of another shape or number of classes than the responses.
        """
        own = self.labelled
        if (own.shape, own.classes) != (transfer_set.shape, transfer_set.classes):
            raise InputError(
                f"the labelled images have shape {own.shape} and {own.classes} classes, but the "
                f"queries {transfer_set.shape} and {transfer_set.classes}."
            )
        responses = transfer_set.responses
        first = self.base.learn(transfer_set, seed).clone
        guesses = TorchPredictor(first).predict(to_float(own.images)).argmax(axis=1)
        permutation = _permutation(guesses, own.responses.argmax(axis=1), own.classes)
        if permutation is not None:
            # Column k of the new responses is the column that the victim shows for class k.
            responses = responses[:, np.argsort(permutation)]
        count = len(responses)
        copies = max(1, round(self.share / (1 - self.share) * count / len(own.images)))
        pixels: list[NDArray[Any]] = [transfer_set.images, *[own.images] * copies]
        if len({part.dtype for part in pixels}) > 1:
            pixels = [to_float(part) for part in pixels]
        both = TransferSet(
            np.concatenate(pixels), np.concatenate([responses, *[own.responses] * copies])
        )
        learned = self.base.learn(both, seed, on_epoch)
        notes = {"permutation": None if permutation is None else permutation.tolist()}
        return TrainedClone(learned.clone, learned.history, learned.notes | notes)


def _permutation(guesses: Labels, labels: Labels, classes: int) -> Labels | None:
    """The label of each predicted class, int64 (classes,); None where labels fit as they are."""
    matches = np.zeros((classes, classes))
    np.add.at(matches, (guesses, labels), 1)
    rows, columns = linear_sum_assignment(matches, maximize=True)
    count = len(labels)
    before, after = np.trace(matches) / count, matches[rows, columns].sum() / count
    error = np.sqrt(max(after * (1 - after), 1 / count) / count)
    if after - before <= 2 * error:
        return None
    permutation: Labels = columns.astype(np.int64)
    return permutation

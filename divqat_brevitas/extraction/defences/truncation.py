"""Truncation: only the label, the k largest probabilities, fewer digits, or a label-only fallback.

The truncations of the oracles "top1", "topk" and "rounded"
(:mod:`divqat_brevitas.extraction.oracles`), as defences that can be composed with others. An oracle
leaves the row as it is cut; a defence divides it by its sum, because a defence returns a
distribution. Tramèr et al., "Stealing Machine Learning Models via Prediction APIs", USENIX Security
2016, sec. 7 (rounding, labels only).

The label-only fallback, "gate", is ours. A network trained with the preset "decoy"
(:mod:`divqat_brevitas.quant.loss`) gives one class to out-of-distribution inputs. Their label
carries no information, but the order of the other classes' probabilities does: an attacker that
subtracts each class's median recovers it. The fallback shows only the label of such responses.

Keyed misdirection, "misdirect", is ours too, and the one that changes labels. It belongs to a
network with a reject output (preset "reject") and shows labels only, for a rejected image a wrong
one (:mod:`divqat_brevitas.misdirection`). Wrong labels on purpose for out-of-distribution queries
are the idea of Kariyappa and Qureshi (CVPR 2020), who take them from a second network.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from divqat_brevitas.errors import InputError, Within
from divqat_brevitas.extraction.arrays import Images, Responses
from divqat_brevitas.extraction.defences.base import NumberedDefence, distributions
from divqat_brevitas.misdirection import misdirection_table, runner_up


@dataclass(frozen=True)
class Top1(NumberedDefence):
    """Only the label: one-hot of the largest probability, the lowest index on a tie.

    Example:
        >>> Top1().perturb(np.zeros((1, 1, 8, 8), np.float32), np.float32([[0.3, 0.7]]))
        array([[0., 1.]], dtype=float32)
    """

    family = "top1"

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """One-hot rows, float32 (N, classes)."""
        responses = np.zeros(probabilities.shape, np.float32)
        responses[np.arange(len(responses)), probabilities.argmax(axis=1)] = 1
        return responses


@dataclass(frozen=True)
class TopK(NumberedDefence):
    """The ``k`` largest probabilities divided by their sum, zeros elsewhere.

    Raises:
        InputError: ``k`` below 1 or no whole number.

    Example:
        >>> TopK(2).perturb(np.zeros((1, 1, 8, 8), np.float32), np.float32([[0.2, 0.6, 0.2]]))
        array([[0.25, 0.75, 0.  ]], dtype=float32)
    """

    family = "topk"
    k: Annotated[int, Within(1, 1_000_000)] = 3

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """At most ``k`` positive entries a row, float32 (N, classes); ties: the lowest index."""
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.k]
        largest = np.zeros(probabilities.shape)
        np.put_along_axis(largest, order, np.take_along_axis(probabilities, order, axis=1), axis=1)
        return distributions(largest)


@dataclass(frozen=True)
class Rounding(NumberedDefence):
    """Probabilities rounded to ``decimals`` places, half to even, divided by their sum.

    A row whose entries all round to 0 becomes uniform. Entries that round alike tie, and on a tie
    the label is the lowest index: rounding may change the label.

    Raises:
        InputError: ``decimals`` outside 0..9 or no whole number.

    Example:
        >>> Rounding(1).perturb(np.zeros((1, 1, 8, 8), np.float32), np.float32([[0.74, 0.26]]))
        array([[0.7, 0.3]], dtype=float32)
    """

    family = "rounding"
    decimals: Annotated[int, Within(0, 9)] = 2

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """Rounded rows, float32 (N, classes)."""
        return distributions(probabilities.astype(np.float64).round(self.decimals))


@dataclass(frozen=True)
class LabelOnlyFallback(NumberedDefence):
    """One-hot responses where one class is the label or has at least a threshold probability.

    Args:
        reject_class: index of the class, as in the loss's settings.
        threshold: probability of that class from which only the label is shown, in (0, 1].

    Raises:
        InputError: a class below 0 or no whole number; a threshold out of range.

    Example:
        >>> rows = np.float32([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.01, 0.6, 0.39]])
        >>> LabelOnlyFallback(0).perturb(np.zeros((3, 1, 8, 8), np.float32), rows)
        array([[1.  , 0.  , 0.  ],
               [0.  , 1.  , 0.  ],
               [0.01, 0.6 , 0.39]], dtype=float32)
    """

    family = "gate"
    reject_class: Annotated[int, Within(low=0)] = 0
    threshold: Annotated[float, Within(above=0, high=1)] = 0.05

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """The rows, one-hot where the out-of-distribution class is likely; float32 (N, classes).

        Raises:
            InputError: the network has no such class.
        """
        classes = probabilities.shape[1]
        if self.reject_class >= classes:
            raise InputError(
                f"defence {self.name!r}: the network has classes 0 to {classes - 1} only."
            )
        label = probabilities.argmax(axis=1) == self.reject_class
        fallback = label | (probabilities[:, self.reject_class] >= np.float32(self.threshold))
        return np.where(fallback[:, None], Top1().perturb(images, probabilities), probabilities)


@dataclass(frozen=True)
class KeyedMisdirection(NumberedDefence):
    """Labels only, and a keyed wrong one where the last entry, the reject output, is the largest.

    The same labels as of the answer "reject:keyed" of a chip whose key is the number in digits.
    The last column of the responses is 0.

    Args:
        key: the secret, a number.

    Raises:
        InputError: a key below 0 or no whole number.

    Example:
        >>> rows = np.float32([[0.6, 0.2, 0.1, 0.1], [0.3, 0.2, 0.1, 0.4]])
        >>> KeyedMisdirection(0).perturb(np.zeros((2, 1, 8, 8), np.float32), rows)
        array([[1., 0., 0., 0.],
               [0., 0., 1., 0.]], dtype=float32)
    """

    family = "misdirect"
    key: Annotated[int, Within(low=0)] = 0

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """One-hot rows, float32 (N, classes + 1).

        Raises:
            InputError: fewer than two classes and a reject output.
        """
        classes = probabilities.shape[1] - 1
        if classes < 2:
            raise InputError(
                f"defence {self.name!r} is of a network with a reject output behind at least 2 "
                f"classes; this one has {classes + 1} outputs."
            )
        table = misdirection_table(str(self.key).encode(), classes)
        inside = probabilities[:, :classes]
        labels = inside.argmax(axis=1)
        rejected = probabilities.argmax(axis=1) == classes
        shown = np.where(rejected, table[labels, runner_up(inside)], labels)
        responses: Responses = np.eye(classes + 1, dtype=np.float32)[shown]
        return responses

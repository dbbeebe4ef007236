"""MAD: responses that turn the attacker's gradient furthest from that of the true response.

Orekondy, Schiele and Fritz, "Prediction Poisoning: Towards Defenses Against DNN Model Stealing
Attacks", ICLR 2020, sec. 4. With G the Jacobian of the surrogate's log-likelihoods by its
parameters, y the true response and D the distance

    y' = argmax  || G'y'/|G'y'| - G'y/|G'y| ||²   s.t.  y' on the simplex,  |y' - y|₁ <= ε

solved as in the paper: the best y* among the corners of the simplex ("mad"), or among the even
mixtures that contain the label, with the label a little ahead ("mad-argmax": the label stays);
then y' = (1 - h) y + h y* with the largest h <= 1 that the ℓ1 ball allows.

G is taken by the weight of the last, fully connected layer, as in the authors' code, of a
surrogate with random weights, their best choice. For that layer G has a closed form that needs no
backward pass: with the layer's input v and the surrogate's probabilities q

    ∇_W log q_k = (e_k - q) v'   hence   G'y = (y - q) v',  and all lengths share the factor |v|

so the objective is the angle between y' - q and y - q, exactly (a test compares it with
automatic differentiation). Only q is needed of the surrogate. The defence is fast, and weaker than
its formula suggests, because the q of a random surrogate hardly depends on the image.
"""

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Images, Responses, check_logits
from divqat_brevitas.extraction.defences.base import check_range, distributions, spelled
from divqat_brevitas.extraction.oracles import softmax
from divqat_brevitas.extraction.predictor import Predictor, as_predictor
from divqat_brevitas.extraction.surrogates.networks import build_surrogate

MOST_EXACT = 10
"""Up to so many classes every mixture is tried, 2^(classes - 1) of them; above, greedily."""
GREEDY_TRIALS = 1024
AHEAD = 1e-5
"""The weight that the label has more than the others in a label-keeping mixture."""
_CHUNK = 1000

Rows = NDArray[np.float64]


class MAD:
    """The defence of Orekondy et al. 2020.

    Args:
        epsilon: bound of the ℓ1 distance of a response to the true one, in [0, 2].
        keep_label: the argmax-preserving variant, "mad-argmax".
        surrogate: a predictor or torch module with the victim's classes; None: the network called
            ``architecture`` with random weights, made at the first query.
        architecture: see :func:`build_surrogate`.
        seed: of the random weights.

    Raises:
        InputError: ``epsilon`` out of range, or a surrogate that cannot predict.

    Example:
        >>> defence = MAD(0.5)
        >>> defence.perturb(np.zeros((1, 1, 8, 8), np.float32), np.float32([[0.75, 0.25, 0]]))
        array([[0.5625, 0.1875, 0.25  ]], dtype=float32)
    """

    def __init__(
        self,
        epsilon: float = 0.5,
        *,
        keep_label: bool = False,
        surrogate: Predictor | nn.Module | None = None,
        architecture: str = "vgg-small",
        seed: int = 0,
    ) -> None:
        self.keep_label = keep_label
        self.epsilon = check_range(self._family, "epsilon", epsilon, 0, 2)
        self.architecture = architecture
        self.seed = seed
        self._given = surrogate is not None
        self._surrogate = None if surrogate is None else as_predictor(surrogate)

    @property
    def _family(self) -> str:
        return "mad-argmax" if self.keep_label else "mad"

    @property
    def name(self) -> str:
        """Such as "mad:0.5" or "mad-argmax:0.5"."""
        return spelled(self._family, self.epsilon)

    @property
    def settings(self) -> dict[str, Any]:
        """``epsilon``, ``keep_label`` and the surrogate."""
        surrogate = {"given": True} if self._given else {"random": self.architecture}
        return {
            "epsilon": self.epsilon,
            "keep_label": self.keep_label,
            "surrogate": surrogate,
            "seed": self.seed,
        }

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """Perturbed rows, float32 (N, classes).

        Raises:
            InputError: the surrogate has another number of classes, or images too small for it.
        """
        if self._surrogate is None:
            _, channels, height, width = images.shape
            self._surrogate = as_predictor(
                build_surrogate(
                    self.architecture, (channels, height, width), probabilities.shape[1], self.seed
                )
            )
        logits = check_logits(self._surrogate.predict(images), len(images), "MAD's surrogate")
        if logits.shape != probabilities.shape:
            raise InputError(
                f"MAD's surrogate has {logits.shape[1]} classes, but the victim "
                f"{probabilities.shape[1]}."
            )
        q, y = softmax(logits).astype(np.float64), probabilities.astype(np.float64)
        corners = np.concatenate(
            [self._corners(q[i : i + _CHUNK], y[i : i + _CHUNK]) for i in range(0, len(y), _CHUNK)]
        )
        distance = np.abs(corners - y).sum(axis=1, keepdims=True)
        h = np.minimum(1, self.epsilon / np.maximum(distance, 1e-12))
        responses = distributions((1 - h) * y + h * corners)
        if self.keep_label:
            # Rounding to float32 may level a lead of less than one unit in the last place.
            lost = responses.argmax(axis=1) != y.argmax(axis=1)
            responses[lost] = probabilities[lost]
        return responses

    def _corners(self, q: Rows, y: Rows) -> Rows:
        if not self.keep_label:
            corners: Rows = np.eye(y.shape[1])[angle_of_corners(q, y).argmax(axis=1)]
            return corners
        if y.shape[1] <= MOST_EXACT:
            return _best_mixture(q, y)
        return _greedy_mixture(q, y)


def angle_of_corners(q: Rows, y: Rows) -> Rows:
    """1 - cos of the angle between e_k - q and y - q for each class k, float64 (N, classes)."""
    d = y - q
    dot = d - (q * d).sum(axis=1, keepdims=True)
    square = 1 - 2 * q + (q**2).sum(axis=1, keepdims=True)
    return _one_minus_cos(dot, square, d)


def _one_minus_cos(dot: Rows, square: Rows, d: Rows) -> Rows:
    # Half of |u - v|² of two unit vectors. Where y = q there is no gradient to turn: all alike.
    lengths = np.sqrt(np.maximum(square, 0) * (d**2).sum(axis=1, keepdims=True))
    score: Rows = 1 - dot / np.maximum(lengths, 1e-30)
    return score


def _best_mixture(q: Rows, y: Rows) -> Rows:
    """The best of all mixtures that contain the label, which is a little ahead in them."""
    masks = np.array(list(product((0.0, 1.0), repeat=y.shape[1])))
    labels = y.argmax(axis=1)
    best = np.empty_like(y)
    for label in np.unique(labels):
        rows = labels == label
        weights = masks[masks[:, label] > 0]
        weights[:, label] += AHEAD
        mixtures = weights / weights.sum(axis=1, keepdims=True)
        own, d = q[rows], (y - q)[rows]
        dot = d @ mixtures.T - (own * d).sum(axis=1, keepdims=True)
        cross = own @ mixtures.T
        square = (mixtures**2).sum(axis=1) - 2 * cross + (own**2).sum(axis=1, keepdims=True)
        best[rows] = mixtures[_one_minus_cos(dot, square, d).argmax(axis=1)]
    return best


def _greedy_mixture(q: Rows, y: Rows) -> Rows:
    """Add one class after the other, each time the best one; keep the best mixture on the way."""
    count, classes = y.shape
    d = y - q
    labels = y.argmax(axis=1)
    rows = np.arange(count)
    classes_in = np.eye(classes)[labels]
    best: Rows = classes_in.copy()
    highest = angle_of_corners(q, y)[rows, labels]
    q_square = (q**2).sum(axis=1, keepdims=True)
    base = (q * d).sum(axis=1, keepdims=True)
    trials = 0
    for size in range(2, classes + 1):
        # A mixture of `size` classes is (chosen + e_k + AHEAD e_label) / (size + AHEAD).
        weights = classes_in.copy()
        weights[rows, labels] += AHEAD
        total = size + AHEAD
        dot = ((weights * d).sum(axis=1, keepdims=True) + d) / total - base
        cross = ((weights * q).sum(axis=1, keepdims=True) + q) / total
        own = ((weights**2).sum(axis=1, keepdims=True) + 1) / total**2
        scores = _one_minus_cos(dot, own - 2 * cross + q_square, d)
        scores[classes_in > 0] = -np.inf
        k = scores.argmax(axis=1)
        classes_in[rows, k] = 1
        weights[rows, k] = 1
        better = scores[rows, k] > highest
        highest = np.where(better, scores[rows, k], highest)
        best[better] = weights[better] / total
        trials += classes - size + 1
        if trials >= GREEDY_TRIALS:
            break
    return best

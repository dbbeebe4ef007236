"""Adaptive Misinformation: unsure queries are answered by a network trained to be wrong.

Kariyappa and Qureshi, "Defending Against Model Stealing Attacks with Adaptive Misinformation",
CVPR 2020, sec. 4:

    y' = (1 - a) f(x) + a f̂(x),   a = 1 / (1 + exp(ν (max f(x) - τ))),  ν = 1000

f̂ is trained on the defender's own training data to give the right class no probability, by the
reverse cross-entropy -log(1 - f̂(x)_y). The paper trains f with outlier exposure, so that it is
unsure on out-of-distribution images; here f is the victim as it is, the "MSP" variant of public
copies.
"""

from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import (
    Images,
    Responses,
    check_labels,
    check_logits,
    check_pool,
    substream,
    to_float,
)
from divqat_brevitas.extraction.defences.base import check_range, distributions, spelled
from divqat_brevitas.extraction.defences.reverse_sigmoid import NU, unsure
from divqat_brevitas.extraction.query.oracles import softmax
from divqat_brevitas.extraction.query.predictor import Predictor, as_predictor
from divqat_brevitas.extraction.surrogates.networks import build_surrogate


class AdaptiveMisinformation:
    """The defence of Kariyappa and Qureshi 2020.

    Args:
        tau: responses whose largest probability is below it become misinformation; in [0, 1.1].
            At 0 nothing changes, above 1 every response is wrong.
        network: f̂, a predictor or torch module with the victim's classes, as
            :func:`train_misinformation` makes it.

    Raises:
        InputError: ``tau`` out of range, or a network that cannot predict.

    Example:
        >>> import numpy as np
        >>> wrong = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> defence = AdaptiveMisinformation(0.8, wrong)
        >>> sure = np.float32([[0.9, 0.1]])
        >>> defence.perturb(np.zeros((1, 1, 8, 8), np.float32), sure)
        array([[0.9, 0.1]], dtype=float32)
    """

    def __init__(self, tau: float, network: Predictor | nn.Module) -> None:
        self.tau = check_range("misinformation", "tau", tau, 0, 1.1)
        self._network = as_predictor(network)

    @property
    def name(self) -> str:
        """Such as "misinformation:0.9"."""
        return spelled("misinformation", self.tau)

    @property
    def settings(self) -> dict[str, Any]:
        """``tau`` and ``nu``."""
        return {"tau": self.tau, "nu": NU}

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """Mixed rows, float32 (N, classes).

        Raises:
            InputError: the misinformation network has another number of classes.
        """
        logits = check_logits(
            self._network.predict(images), len(images), "the misinformation network's predictions"
        )
        if logits.shape != probabilities.shape:
            raise InputError(
                f"the misinformation network has {logits.shape[1]} classes, but the victim "
                f"{probabilities.shape[1]}."
            )
        share = unsure(probabilities, self.tau)
        return distributions((1 - share) * probabilities + share * softmax(logits))


def reverse_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of -log(1 - p_y): small where the right class gets no probability.

    Example:
        >>> reverse_cross_entropy(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.6931)
    """
    right = F.one_hot(labels, logits.shape[1]).bool()
    others = logits.masked_fill(right, -torch.inf)
    return (logits.logsumexp(dim=1) - others.logsumexp(dim=1)).mean()


def train_misinformation(
    images: NDArray[Any],
    labels: NDArray[Any],
    *,
    classes: int | None = None,
    network: str = "vgg-small",
    epochs: int = 10,
    seed: int = 0,
    learning_rate: float = 0.02,
) -> nn.Module:
    """Train f̂ on the defender's own training data, by SGD with momentum 0.9 in batches of 64.

    Args:
        images: uint8, or float32 in [0, 1], NCHW, at least 2; never the test set.
        labels: integers (N,).
        classes: of the victim; None: as many as the labels name.
        network: see :func:`build_surrogate`.
        epochs: passes over the images, at least 1.
        seed: of the weights and the order of images; global random state is left as it was.
        learning_rate: constant.

    Returns:
        The network, in eval mode.

    Raises:
        InputError: bad images or labels, or no epoch.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.random((20, 1, 8, 8), np.float32), rng.integers(0, 3, 20)
        >>> train_misinformation(x, y, classes=3, network="mlp", epochs=1).training
        False
    """
    pixels = check_pool(images, "the misinformation network's training images")
    targets = check_labels(labels, len(pixels), "the misinformation network's training labels")
    if len(pixels) < 2 or epochs < 1:
        raise InputError(
            f"a misinformation network needs at least 2 images and 1 epoch, but got "
            f"{len(pixels)} images and {epochs} epochs."
        )
    count = int(targets.max()) + 1 if classes is None else classes
    if targets.max() >= count:
        raise InputError(f"label {targets.max()} does not fit {count} classes.")
    _, channels, height, width = pixels.shape
    model = build_surrogate(network, (channels, height, width), count, seed)
    x, y = torch.from_numpy(to_float(pixels)), torch.from_numpy(targets)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=5e-4
    )
    generator = torch.Generator().manual_seed(
        int(substream(seed, "misinformation").integers(2**62))
    )
    model.train()
    for _ in range(epochs):
        # Parts of equal size: a last batch of one image would break batch normalisation.
        for part in torch.randperm(len(x), generator=generator).tensor_split(-(-len(x) // 64)):
            loss = reverse_cross_entropy(model(x[part]), y[part])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()

"""Defences that answer with other networks: Adaptive Misinformation, and an ensemble.

Kariyappa and Qureshi, "Defending Against Model Stealing Attacks with Adaptive Misinformation",
CVPR 2020, sec. 4: unsure queries are answered by a network trained to be wrong::

    y' = (1 - a) f(x) + a f̂(x),   a = 1 / (1 + exp(ν (max f(x) - τ))),  ν = 1000

f̂ is trained on the defender's own training data to give the right class no probability, by the
reverse cross-entropy -log(1 - f̂(x)_y). The paper trains f with outlier exposure, so that it is
unsure on out-of-distribution images; here f is the victim as it is, the "MSP" variant of public
copies.

Kariyappa, Prakash and Qureshi, "Protecting DNNs from Theft using an Ensemble of Diverse Models",
ICLR 2021, sec. 4 (EDM): a secret hash of the image picks which network answers. Networks that agree
on the victim's own data and disagree elsewhere give responses that jump from image to image where
an attacker asks; asking again gives the same response. The hash here is a keyed BLAKE2b of the
image as 8-bit pixels: a change of one grey value in one pixel draws anew, a change below that does
not. The networks come from outside; trained alike but for the seed they disagree less than the
paper's, which are trained to.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Images, Responses, check_logits, check_pool, substream
from divqat_brevitas.extraction.defences.base import check_range, distributions, spelled, untrained
from divqat_brevitas.extraction.defences.perturbation import NU, unsure
from divqat_brevitas.extraction.oracles import softmax
from divqat_brevitas.extraction.predictor import Predictor, as_predictor


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
    whose = "the misinformation network's"
    count = len(check_pool(images, f"{whose} training images"))
    if count < 2 or epochs < 1:
        raise InputError(
            f"a misinformation network needs at least 2 images and 1 epoch, but got {count} images "
            f"and {epochs} epochs."
        )
    model, pixels, targets, _ = untrained(images, labels, classes, network, seed, whose)
    x, y = torch.from_numpy(pixels), torch.from_numpy(targets)
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


class EnsembleOfDiverseModels:
    """The defence of Kariyappa et al. 2021; the victim's own network is member 0.

    In a composition it stands first: the responses of other members do not pass through the parts
    before it.

    Args:
        models: the further members, predictors or torch modules with the victim's classes.
        secret: key of the hash.

    Raises:
        InputError: no further member, or one that cannot predict.

    Example:
        >>> other = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> EnsembleOfDiverseModels([other]).name
        'ensemble:2'
    """

    def __init__(self, models: Sequence[Predictor | nn.Module], secret: int = 0) -> None:
        if not models:
            raise InputError("an ensemble needs at least one network in addition to the victim's.")
        self._models = [as_predictor(model) for model in models]
        self.secret = secret

    @property
    def name(self) -> str:
        """Such as "ensemble:3", with the number of members."""
        return f"ensemble:{len(self._models) + 1}"

    @property
    def settings(self) -> dict[str, Any]:
        """The number of ``members`` and the ``secret``."""
        return {"members": len(self._models) + 1, "secret": self.secret}

    def members(self, images: Images) -> NDArray[np.int64]:
        """The member that answers each image, int64 (N,): 0 is the victim's own network."""
        key = str(self.secret).encode()[:64]
        pixels = np.round(images * np.float32(255)).astype(np.uint8)
        digests = [
            hashlib.blake2b(image.tobytes(), digest_size=8, key=key).digest() for image in pixels
        ]
        count = len(self._models) + 1
        return np.array([int.from_bytes(d, "big") % count for d in digests], np.int64)

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """The chosen members' probabilities, float32 (N, classes).

        Raises:
            InputError: a member with another number of classes.
        """
        members = self.members(images)
        responses = probabilities.astype(np.float64)
        for number, model in enumerate(self._models, start=1):
            rows = members == number
            if not rows.any():
                continue
            what = f"the predictions of ensemble member {number}"
            logits = check_logits(model.predict(images[rows]), int(rows.sum()), what)
            if logits.shape[1] != probabilities.shape[1]:
                raise InputError(
                    f"ensemble member {number} has {logits.shape[1]} classes, but the victim "
                    f"{probabilities.shape[1]}."
                )
            responses[rows] = softmax(logits)
        return distributions(responses)

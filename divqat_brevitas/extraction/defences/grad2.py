"""GRAD²: gradient redirection, responses that push every clone's parameters one way.

Mazeika, Li and Forsyth, "How to Steer Your Adversary: Targeted and Efficient Model Stealing
Defenses with Gradient Redirection", ICML 2022, sec. 4. With G the Jacobian of the surrogate's
log-probabilities by all its parameters and z the direction to push

    y' = argmax  <G'y', z>   s.t.  y' on the simplex,  |y' - y|₁ <= ε

a linear program with a closed solution (their algorithm 1): with c = G z, up to ε/2 of mass goes
to the class of largest c, taken from the classes of smallest c first.

z is the vector of ones ("all-ones"), the same for every query, which is what the authors report
as GRAD², on a surrogate trained for 10 epochs; or minus the gradient that the batch's own true
responses give ("min-ip"), which depends on what is asked together. c is one forward-mode derivative
a batch, for all classes at once; no Jacobian is ever stored.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.extraction.arrays import Images, Responses
from divqat_brevitas.extraction.defences.base import check_range, distributions, spelled, untrained
from divqat_brevitas.extraction.surrogates.training import train_surrogate
from divqat_brevitas.inference import as_logits, device_of, evaluating

DIRECTIONS = ("all-ones", "min-ip")
BATCH = 256


class GradientRedirection:
    """The defence of Mazeika et al. 2022.

    Args:
        epsilon: bound of the ℓ1 distance of a response to the true one, in [0, 2].
        surrogate: a torch module with the victim's classes, see :func:`train_redirection`.
        direction: "all-ones" or "min-ip".

    Raises:
        InputError: ``epsilon`` out of range, an unknown direction, or no torch module.

    Example:
        >>> from divqat_brevitas.extraction import build_surrogate
        >>> surrogate = build_surrogate("mlp", (1, 8, 8), 3, seed=0)
        >>> defence = GradientRedirection(0.5, surrogate)
        >>> p = np.float32([[0.4, 0.3, 0.3]])
        >>> y = defence.perturb(np.ones((1, 1, 8, 8), np.float32), p)
        >>> round(float(abs(y - p).sum()), 3)
        0.5
    """

    def __init__(self, epsilon: float, surrogate: nn.Module, direction: str = "all-ones") -> None:
        self.epsilon = check_range("grad2", "epsilon", epsilon, 0, 2)
        if direction not in DIRECTIONS:
            raise unknown_name("direction of defence 'grad2'", direction, DIRECTIONS)
        if not isinstance(surrogate, nn.Module):
            raise InputError(
                f"GRAD² needs a torch module as surrogate, for its gradients; a "
                f"{type(surrogate).__name__} has none."
            )
        self.direction = direction
        self._surrogate = surrogate

    @property
    def name(self) -> str:
        """Such as "grad2:0.5" or, for the other direction, "grad2-min-ip:0.5"."""
        family = "grad2" if self.direction == "all-ones" else "grad2-min-ip"
        return spelled(family, self.epsilon)

    @property
    def settings(self) -> dict[str, Any]:
        """``epsilon`` and ``direction``."""
        return {"epsilon": self.epsilon, "direction": self.direction}

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """Redirected rows, float32 (N, classes).

        Raises:
            InputError: the surrogate has another number of classes.
        """
        parts = [
            self._coefficients(images[i : i + BATCH], probabilities[i : i + BATCH])
            for i in range(0, len(images), BATCH)
        ]
        return redirect(probabilities, np.concatenate(parts), self.epsilon)

    def _coefficients(self, images: Images, probabilities: Responses) -> NDArray[np.float64]:
        """The products c = G z of each image, float64 (N, classes)."""
        model, device = self._surrogate, device_of(self._surrogate)
        x = torch.tensor(images, device=device)
        parameters = {name: value.detach() for name, value in model.named_parameters()}
        buffers = {name: value.detach() for name, value in model.named_buffers()}

        def log_probabilities(weights: dict[str, Tensor]) -> Tensor:
            output = functional_call(model, (weights, buffers), (x,))
            return F.log_softmax(as_logits(output, len(x), "the surrogate"), dim=1)

        with evaluating(model), torch.enable_grad():
            if self.direction == "all-ones":
                z = {name: torch.ones_like(value) for name, value in parameters.items()}
            else:
                y = torch.tensor(probabilities, device=device)
                ascent = grad(lambda w: (y * log_probabilities(w)).sum(dim=1).mean())(parameters)
                z = {name: -value for name, value in ascent.items()}
            c = jvp(log_probabilities, (parameters,), (z,))[1]
        if tuple(c.shape) != probabilities.shape:
            raise InputError(
                f"GRAD²'s surrogate has {c.shape[1]} classes, but the victim "
                f"{probabilities.shape[1]}."
            )
        coefficients: NDArray[np.float64] = c.detach().double().cpu().numpy()
        return coefficients


def redirect(
    probabilities: Responses, coefficients: NDArray[np.float64], epsilon: float
) -> Responses:
    """The point of largest <y', c> on the simplex within ℓ1 distance ``epsilon`` of each row.

    Example:
        >>> redirect(np.float32([[0.75, 0.25, 0]]), np.float64([[0, 1, 2]]), 0.5)
        array([[0.5 , 0.25, 0.25]], dtype=float32)
    """
    y = probabilities.astype(np.float64)
    order = np.argsort(coefficients, axis=1, kind="stable")
    ranked = np.take_along_axis(y, order, axis=1)
    gain = np.minimum(epsilon / 2, 1 - ranked[:, -1:])
    before = np.cumsum(ranked, axis=1) - ranked
    loss = np.clip(gain - before, 0, ranked)
    loss[:, -1] = 0
    ranked = ranked - loss
    ranked[:, -1:] += loss.sum(axis=1, keepdims=True)
    responses = np.empty_like(y)
    np.put_along_axis(responses, order, ranked, axis=1)
    return distributions(responses)


def train_redirection(
    images: NDArray[Any],
    labels: NDArray[Any],
    *,
    classes: int | None = None,
    network: str = "vgg-small",
    epochs: int = 10,
    seed: int = 0,
) -> nn.Module:
    """Train GRAD²'s surrogate on the owner's training data.

    The paper trains it on an attacker's queries with the victim's responses; here the queries are
    not known. Arguments and result are those of
    :func:`~divqat_brevitas.extraction.defences.networks.train_misinformation`.

    Raises:
        InputError: bad images or labels, or no epoch.
    """
    model, x, y, count = untrained(images, labels, classes, network, seed, "the surrogate's")
    train_surrogate(model, x, np.eye(count, dtype=np.float32)[y], epochs=epochs, seed=seed)
    return model

"""ActiveThief: queries in rounds, each time the images from which a clone learns most.

Pal et al., "ActiveThief: Model Extraction Using Active Learning and Unannotated Public Data", AAAI
2020; k-center is the greedy core-set of Sener and Savarese, ICLR 2018; DFAL is Ducoffe and
Precioso, "Adversarial Active Learning for Deep Networks: a Margin Based Approach", 2018.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from divqat_brevitas.errors import OneOf, Within
from divqat_brevitas.extraction.arrays import Images, Labels, Responses, substream, to_float
from divqat_brevitas.extraction.attacks.base import Round, RoundsAttack
from divqat_brevitas.extraction.oracles import softmax
from divqat_brevitas.extraction.predictor import TorchPredictor

DEEPFOOL_BATCH = 256
OVERSHOOT = 0.02


def entropy(probabilities: Responses) -> NDArray[np.float64]:
    """Entropy of each row in nats, float64 (N,).

    Example:
        >>> entropy(np.array([[1, 0], [0.5, 0.5]], np.float32)).round(3).tolist()
        [0.0, 0.693]
    """
    p = probabilities.astype(np.float64)
    summands = np.zeros_like(p)
    np.log(p, out=summands, where=p > 0)
    total: NDArray[np.float64] = -(p * summands).sum(axis=1)
    return np.abs(total)  # no negative zero


def greedy_k_center(points: NDArray[np.floating], centers: NDArray[np.floating], k: int) -> Labels:
    """Select k points (N, D), one by one the furthest from centres (M, D) and points selected.

    Returns their distinct indices in the order of selection, int64 (k,); ties go to the lowest
    index.

    Example:
        >>> greedy_k_center(np.array([[0.1], [1.0], [0.6]]), np.array([[0.0]]), 2).tolist()
        [1, 2]
    """
    points = points.astype(np.float64)
    distance = np.full(len(points), np.inf)
    for center in centers.astype(np.float64):
        np.minimum(distance, ((points - center) ** 2).sum(axis=1), out=distance)
    selected = np.empty(k, np.int64)
    for i in range(k):
        selected[i] = distance.argmax()
        np.minimum(distance, ((points - points[selected[i]]) ** 2).sum(axis=1), out=distance)
        # Points that coincide are at distance 0: what is chosen lies below even them.
        distance[selected[: i + 1]] = -1
    return selected


def deepfool_distance(
    clone: nn.Module, images: Images, rivals: int = 4, iterations: int = 10
) -> NDArray[np.float64]:
    """Length (l2) of the DeepFool perturbation that changes the clone's label, float64 (N,).

    Moosavi-Dezfooli et al., "DeepFool", CVPR 2016, algorithm 2, in batches, against the ``rivals``
    nearest classes by logit (ten in the paper). An image that is not over the boundary after all
    iterations counts with the length of its perturbation.

    Example:
        >>> line = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        >>> _ = line[1].weight.data.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]))
        >>> deepfool_distance(line, np.full((1, 1, 2, 2), 0.5, np.float32)).round(2).tolist()
        [0.51]
    """
    parts = np.array_split(images, -(-len(images) // DEEPFOOL_BATCH))
    return np.concatenate([_deepfool_batch(clone, part, rivals, iterations) for part in parts])


def _deepfool_batch(
    clone: nn.Module, images: Images, rivals: int, iterations: int
) -> NDArray[np.float64]:
    start = torch.tensor(images)
    perturbation = torch.zeros_like(start)
    logits = torch.from_numpy(TorchPredictor(clone).predict(images))
    order = logits.argsort(dim=1, descending=True, stable=True)[:, : rivals + 1]
    active = torch.arange(len(start))
    for _ in range(iterations):
        perturbation[active] += _nearest_boundary(
            clone, (start + perturbation)[active], order[active]
        )
        perturbed = (start + (1 + OVERSHOOT) * perturbation)[active]
        with torch.no_grad():
            active = active[clone(perturbed).argmax(dim=1) == order[active, 0]]
        if len(active) == 0:
            break
    length: NDArray[np.float64] = perturbation.flatten(1).double().norm(dim=1).numpy() * (
        1 + OVERSHOOT
    )
    return length


def _nearest_boundary(clone: nn.Module, x: Tensor, order: Tensor) -> Tensor:
    """The smallest step over the linearised boundary to one of the rivals order[:, 1:]."""
    x = x.requires_grad_()
    logits = clone(x).gather(1, order)
    gradients = torch.stack(
        [
            torch.autograd.grad(logits[:, i].sum(), x, retain_graph=True)[0].flatten(1)
            for i in range(order.shape[1])
        ],
        dim=1,
    )
    normals = gradients[:, 1:] - gradients[:, :1]
    gaps = (logits[:, 1:] - logits[:, :1]).detach().abs()
    # A clone without slope towards a rival never gets there: not a division by zero.
    norms = normals.norm(dim=2).clamp_min(1e-8)
    nearest = (gaps / norms).argmin(dim=1)
    row = torch.arange(len(x))
    # The tiny addition is the authors': it carries the step over the boundary.
    scale = (gaps[row, nearest] + 1e-4) / norms[row, nearest] ** 2
    step: Tensor = scale[:, None] * normals[row, nearest]
    return step.reshape(x.shape)


SELECTIONS = ("k-center", "entropy", "dfal+k-center")


@dataclass(frozen=True)
class ActiveThief(RoundsAttack):
    """Active learning of the victim from a pool.

    The first queries are random. In each further round a substitute is trained on all responses
    and selects the next queries:

    * "entropy": the images whose label it is least certain of;
    * "k-center": those whose probabilities are furthest from those of all queried images;
    * "dfal+k-center": k-center among the images nearest to its decision boundaries (DeepFool).

    Deviations from the paper: no responses are held out for validation (20 % in the paper);
    DeepFool evaluates a random part of the pool each round and passes on as many images as the
    budget (the paper's ρ), but at most half of those that it evaluated.

    Args:
        learner: trains the final clone, from scratch on all responses.
        seed: of everything random in the attack.
        selection: one of the above.
        initial: part of the budget that is asked at random.
        rounds: number of rounds for the rest.
        deepfool_images: images that DeepFool evaluates in a round.
        substitute: settings of the clones that select.

    Example:
        >>> from divqat_brevitas.extraction import PlainLearner, Substitute, Victim
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> pool = np.random.default_rng(0).random((60, 1, 8, 8), np.float32)
        >>> fast = Substitute(surrogate="mlp", steps=2)
        >>> learner = PlainLearner(surrogate="mlp", epochs=1)
        >>> attack = ActiveThief(learner, rounds=2, substitute=fast)
        >>> result = attack.run(Victim(model, budget=40), pool)
        >>> [round_["queries"] for round_ in result.rounds], len(set(result.indices))
        ([4, 22, 40], 40)
    """

    selection: Annotated[str, OneOf("selection", SELECTIONS)] = "k-center"
    deepfool_images: Annotated[int, Within(low=1)] = 2000

    @property
    def name(self) -> str:
        """The name in results: "active-" and the selection, with "k-center" as "kcenter"."""
        return f"active-{self.selection.replace('k-center', 'kcenter')}"

    def _choose(
        self,
        images: NDArray[Any],
        asked: Labels,
        responses: Responses,
        size: int,
        number: int,
        total: int,
    ) -> tuple[Labels, Round]:
        """The next queries, and two mean entropies in nats: theirs, and that of the "pool" left."""
        clone = self.substitute.train(images[asked], responses, self.seed, number)
        left = np.setdiff1d(np.arange(len(images)), asked)
        probabilities = softmax(TorchPredictor(clone).predict(to_float(images[left])))
        uncertainty = entropy(probabilities)
        if self.selection == "entropy":
            selection = np.argsort(-uncertainty, kind="stable")[:size]
        else:
            near = np.arange(len(left))
            if self.selection == "dfal+k-center":
                near = self._near_boundary(clone, images, left, size, number, total)
            centers = softmax(TorchPredictor(clone).predict(to_float(images[asked])))
            selection = near[greedy_k_center(probabilities[near], centers, size)]
        means = {"entropy": float(uncertainty[selection].mean()), "pool": float(uncertainty.mean())}
        return left[selection], means

    def _near_boundary(
        self,
        clone: nn.Module,
        images: NDArray[Any],
        left: Labels,
        size: int,
        number: int,
        total: int,
    ) -> Labels:
        """Positions in ``left`` of the images nearest to another label."""
        sample_size = min(len(left), max(size, self.deepfool_images))
        rng = substream(self.seed, f"deepfool {number}")
        part = np.sort(rng.choice(len(left), sample_size, replace=False))
        distance = deepfool_distance(clone, to_float(images[left[part]]))
        count = max(size, min(total, sample_size // 2))
        return part[np.argsort(distance, kind="stable")[:count]]

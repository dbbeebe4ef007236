"""Selection of queries by active learning, from a clone's predictions of the pool.

Pal et al., "ActiveThief: Model Extraction Using Active Learning and Unannotated Public Data",
AAAI 2020; k-center is the greedy core-set of Sener and Savarese, ICLR 2018; DFAL is Ducoffe and
Precioso, "Adversarial Active Learning for Deep Networks: a Margin Based Approach", 2018.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from divqat_brevitas.extraction.arrays import Images, Labels, Responses
from divqat_brevitas.extraction.query.predictor import TorchPredictor

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
    """Select k points one by one, each the furthest from all centres and selected points.

    Args:
        points: (N, D), N at least k.
        centers: (M, D), M at least 1.
        k: number of points to select.

    Returns:
        Distinct indices of points in the order of selection, int64 (k,); ties go to the lowest
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

    Moosavi-Dezfooli et al., "DeepFool", CVPR 2016, algorithm 2, in batches. An image that is not
    over the boundary after all iterations counts with the length of its perturbation.

    Args:
        clone: in eval mode; images to logits.
        images: float32 (N, C, H, W).
        rivals: number of other classes, the nearest by logit (ten in the paper).
        iterations: largest number of linearisations of the clone.

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

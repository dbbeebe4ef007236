"""Cut a set into disjoint splits, the same on every machine."""

from collections.abc import Mapping

import numpy as np

from divqat_brevitas.data.arrays import Labels

SEED = 20261122  # of the published splits; changing it changes every result


def permutation(count: int, seed: int) -> Labels:
    """A random order of 0..count-1 that no NumPy release may change.

    NumPy keeps the raw stream of a bit generator fixed for ever (NEP 19), but not the
    output of ``Generator.permutation``; so raw 64-bit words are sorted.
    """
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable").astype(np.int64)


def split_indices(
    labels: Labels, weights: Mapping[str, int], groups: Labels | None = None, seed: int = SEED
) -> dict[str, Labels]:
    """Disjoint, covering, stratified splits of a set.

    Every class is spread evenly over one line, which is then cut in proportion to
    ``weights``: a split's size is exact to one image, and so is each class within it. A
    split keeps the order of the line, so its first images are stratified too.

    Args:
        labels: int64 (N,).
        weights: share of each split, in order, such as ``{"train": 45, "val": 5, "pool": 10}``.
        groups: int64 (N,) or None; images of one group stay together (sizes are then exact
            to one group). A group has one label.
        seed: of the permutation.

    Returns:
        For each split, int64 indices into ``labels``.

    Example:
        >>> {k: len(v) for k, v in split_indices(np.arange(60) % 10, {"a": 2, "b": 1}).items()}
        {'a': 40, 'b': 20}
    """
    if groups is None:
        groups = np.arange(len(labels))
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    unit_labels = labels[first]

    order = permutation(len(first), seed)
    place = np.empty(len(first))  # of each unit on the line, in [0, 1)
    for label in np.unique(unit_labels):
        of_class = order[unit_labels[order] == label]
        place[of_class] = (np.arange(len(of_class)) + 0.5) / len(of_class)
    line = order[np.argsort(place[order], kind="stable")]

    rank = np.empty(len(line), dtype=np.int64)
    rank[line] = np.arange(len(line))
    in_line = np.argsort(rank[member], kind="stable")  # images, group by group
    shares = np.cumsum([0, *weights.values()])
    cuts = (len(line) * shares + shares[-1] // 2) // shares[-1]
    bounds = np.searchsorted(rank[member][in_line], cuts)
    return {name: in_line[bounds[i] : bounds[i + 1]] for i, name in enumerate(weights)}

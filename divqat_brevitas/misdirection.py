"""Keyed misdirection: which wrong label is shown in place of a rejected image's own.

A constant wrong class is the mildest one: a clone learns it as one more rule, and a correction for
the label prior undoes most of it. Here every pair of label and runner-up, the two highest classes,
has a class of its own, drawn with a secret key. Mirroring or shifting an image by some pixels
mostly leaves its two highest classes as they are, so that asking twice shows little; a key made of
coarse pixels is found out by it.

The table is the same for the software defence and for the answer unit of a chip.
"""

import hmac

import numpy as np
from numpy.typing import NDArray

_TRIGGERS = 32  # of 256: pairs that show the constant class


def misdirection_table(key: bytes, classes: int, constant: int | None = None) -> NDArray[np.int64]:
    """The class that is shown for a label and its runner-up.

    For each runner-up the labels are deranged: every class is shown for exactly one label, never
    for itself. Ranks of keyed hashes (HMAC-SHA-256) give the derangement, so that the table depends
    on nothing but the arguments.

    Args:
        key: the secret; as long as a hash, 32 bytes, is enough.
        classes: number of classes, 2 or more.
        constant: class of an ownership test's triggers. A keyed eighth of the pairs shows it,
            except pairs whose label it is. None: no such pairs.

    Returns:
        int64 (classes, classes): of row ``label`` and column ``runner_up``. The diagonal has no
        meaning.

    Example:
        >>> misdirection_table(b"secret", 3)[:, 0].tolist()
        [1, 2, 0]
    """
    table = np.empty((classes, classes), dtype=np.int64)
    labels = np.arange(classes)
    for second in range(classes):
        attempt = 0
        while True:  # a random permutation is a derangement with probability 1/e
            ranks = [_hash(key, f"{attempt}.{second}.{label}") for label in range(classes)]
            table[:, second] = sorted(range(classes), key=ranks.__getitem__)
            if not (table[:, second] == labels).any():
                break
            attempt += 1
        if constant is not None:
            chosen = [_hash(key, f"trigger.{second}.{k}")[0] < _TRIGGERS for k in range(classes)]
            table[chosen & (labels != constant), second] = constant
    return table


def _hash(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def runner_up(scores: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.int64]:
    """The second highest class, int64 (N,), of scores (N, classes); of equals the lowest.

    Example:
        >>> runner_up(np.array([[7, 9, 8], [4, 4, 4]])).tolist()
        [2, 1]
    """
    second: NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")[:, 1]
    return second

"""Types of image batches, labels and responses, and the checks of what comes in."""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import InputError
from divqat_brevitas.input_range import UNIT, InputRange

Images = NDArray[np.float32]
"""Images: float32 NCHW in [0, 1]."""
Responses = NDArray[np.float32]
"""Logits or responses of an oracle: float32 (N, classes)."""
Labels = NDArray[np.int64]
"""Class labels: int64 (N,)."""


def check_images(
    images: object, what: str = "the images", declared: InputRange | None = None
) -> Images:
    """Return ``images`` unchanged if they are float32 NCHW, not empty, finite and in [0, 1].

    Inputs in another ``declared`` range may have any shape (N, ...), which the victim checks.

    Raises:
        InputError: anything else, with the fix.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.float32:
        got = getattr(images, "dtype", type(images).__name__)
        raise InputError(
            f"{what} must be a float32 NumPy array in {declared or UNIT}, but came as {got}. "
            "From stored uint8 images: images.astype(np.float32)"
            f"{' / 255' if declared in (None, UNIT) else ''}."
        )
    if declared is None:
        _check_shape(images, what)
    elif images.ndim < 2 or 0 in images.shape:
        raise InputError(
            f"{what} must have shape (N, ...) with at least one input, but have {images.shape}."
        )
    if declared not in (None, UNIT):
        if not declared.holds(images):
            raise InputError(
                f"{what} must lie in {declared} and be finite, which is the range that the victim "
                f"declares, but span [{images.min()}, {images.max()}]."
            )
        return images
    # Written so that NaN fails it too.
    if not (images.min() >= 0 and images.max() <= 1):
        raise InputError(
            f"{what} must lie in [0, 1] and be finite, but span "
            f"[{images.min()}, {images.max()}]. Divide uint8 pixels by 255; do not standardise."
        )
    return images


def check_pool(images: object, what: str = "the pool") -> NDArray[Any]:
    """Return ``images`` unchanged if they are uint8 NCHW or valid float32 images.

    Raises:
        InputError: another dtype, not four axes, empty, or out of range.
    """
    if isinstance(images, np.ndarray) and images.dtype == np.uint8:
        _check_shape(images, what)
        return images
    return check_images(images, what)


def to_float(images: NDArray[Any]) -> Images:
    """Float32 NCHW in [0, 1]: uint8 pixels are divided by 255, float32 passes through."""
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255)
    return images


def check_labels(labels: object, count: int, what: str = "the labels") -> Labels:
    """Return ``labels`` as int64 (count,).

    Raises:
        InputError: not integers, negative, or another number of labels than images.
    """
    array = np.asarray(labels)
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"{what} must be {count} integers, one an image, but came as {array.dtype} "
            f"of shape {array.shape}."
        )
    if count and array.min() < 0:
        raise InputError(f"{what} must not be negative, but the smallest is {array.min()}.")
    return array.astype(np.int64)


def check_logits(logits: object, count: int | None, what: str) -> Responses:
    """Return ``logits`` as float32 (count, classes); ``count=None`` takes any number of rows.

    Raises:
        InputError: not a matrix, another number of rows, fewer than two classes, NaN or infinity.
    """
    array = np.asarray(logits)
    rows = array.shape[0] if count is None and array.ndim else count
    if array.ndim != 2 or array.shape[0] != rows or array.shape[1] < 2:
        wanted = "N" if count is None else str(count)
        raise InputError(
            f"{what} must be logits of shape ({wanted}, classes) with at least 2 classes, "
            f"but have shape {array.shape}."
        )
    if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
        raise InputError(
            f"{what} must be finite floating-point logits, but hold NaN, infinity or "
            f"{array.dtype} values. Check the model: a diverged training gives such numbers."
        )
    return array.astype(np.float32, copy=False)


def substream(seed: int, name: str) -> np.random.Generator:
    """An independent random stream for one named purpose of a seeded run.

    Drawing more numbers for one purpose does not change another.
    """
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _check_shape(images: NDArray[Any], what: str) -> None:
    if images.ndim != 4 or 0 in images.shape:
        raise InputError(
            f"{what} must have shape (N, channels, height, width) with at least one image, "
            f"but have shape {images.shape}."
        )

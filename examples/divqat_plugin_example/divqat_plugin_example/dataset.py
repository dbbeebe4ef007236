"""A data set: grey 8x8 images of stripes in four directions, drawn from a fixed seed."""

from pathlib import Path

import numpy as np

from divqat_brevitas.data.arrays import Part
from divqat_brevitas.data.sources import Layout, Source

CLASSES = ("horizontal", "vertical", "rising", "falling")
_IMAGES = 1000
_SEED = 2026


def draw(root: Path, part: str) -> Part:
    """All images with their labels; divqat cuts the splits from them, the same everywhere."""
    del root, part  # drawn, not read
    rng = np.random.default_rng(_SEED)
    labels = np.arange(_IMAGES, dtype=np.int64) % len(CLASSES)
    y, x = np.mgrid[:8, :8]
    along = np.stack([y, x, (x + y) / 2, (x - y) / 2])[labels]
    phase, width = rng.random((2, _IMAGES, 1, 1))
    waves = np.sin(2 * np.pi * (along / (2.5 + width) + phase))
    noisy = 0.5 + 0.3 * waves + rng.normal(0, 0.1, waves.shape)
    images = np.round(255 * noisy.clip(0, 1)).astype(np.uint8)[:, None]
    return Part.of(images, labels, len(CLASSES), "stripes")


SOURCE = Source(
    classes=CLASSES,
    shape=(1, 8, 8),
    weights={"train": 5, "val": 1, "test": 2, "pool": 2},  # shares of the whole
    layouts=(Layout(present=lambda root: True, read=draw),),
    how="nothing to do: it is drawn",
    main="all",
)

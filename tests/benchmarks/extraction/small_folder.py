"""A data set as a user has it: a folder of pictures, three colours with noise."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")


def small_folder(root: Path, side: int = 8, train: int = 60, test: int = 10) -> str:
    """Pictures of ``side`` pixels, so many a class; gives the set's name."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for number, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 100, (side, side, 3), dtype=np.uint8)
                pixels[:, :, number] += 120
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return f"imagefolder:{root}?size={side}"

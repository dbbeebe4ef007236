"""Tiny stand-ins for real data sets: no network, no real pixels."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from divqat_brevitas.data.arrays import Labels, Pixels


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def random_set(count: int, shape: tuple[int, int, int], classes: int) -> tuple[Pixels, Labels]:
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    return images, (np.arange(count) % classes).astype(np.int64)


def tgz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def deb(members: dict[str, bytes]) -> bytes:
    def entry(name: str, content: bytes) -> bytes:
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n"
        return header.encode() + content + b"\n" * (len(content) % 2)

    data = tgz({f"./{k}": v for k, v in members.items()})
    return (
        b"!<arch>\n"
        + entry("debian-binary", b"2.0\n")
        + entry("control.tar.xz", b"odd")
        + entry("data.tar.gz", data)
    )


_CLASSES = ("blue", "green", "red")


def small_folder(root: Path, side: int = 8, train: int = 60, test: int = 10) -> str:
    """A folder of pictures as a user has it, three colours with noise; the set's name.

    ``train`` and ``test`` are pictures a class, ``side`` their height and width.
    """
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for number, name in enumerate(_CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 100, (side, side, 3), dtype=np.uint8)
                pixels[:, :, number] += 120
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return f"imagefolder:{root}?size={side}"

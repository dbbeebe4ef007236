from pathlib import Path

import numpy as np
import pytest
import torch

from divqat_brevitas.extraction import PlainLearner, SurrogateTraining, TransferSet
from divqat_brevitas.extraction.learners import make_learner

_RNG = np.random.default_rng(0)
_IMAGES = _RNG.random((60, 1, 8, 8), np.float32)
_ANSWERS = _RNG.dirichlet(np.ones(4), 60).astype(np.float32)


def _learn(folder: Path | None, responses=_ANSWERS, seed=3, images=_IMAGES, **how):
    epochs: list[int] = []
    learner = PlainLearner(**{"surrogate": "mlp", "epochs": 2, **how}, remember=folder)
    learned = learner.learn(
        TransferSet(images, responses), seed, lambda row: epochs.append(int(row["epoch"]))
    )
    return learned, len(epochs)


def _equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_clone_is_trained_once_and_comes_back_bit_for_bit(tmp_path: Path) -> None:
    plain, _ = _learn(None)
    first, trained = _learn(tmp_path)
    second, again = _learn(tmp_path)

    assert (trained, again) == (2, 0)
    assert _equal(plain.clone, first.clone)
    assert _equal(first.clone, second.clone)
    assert not second.clone.training
    assert second.history == first.history == plain.history


def test_labels_of_soft_answers_find_the_clone_of_a_top1_interface(tmp_path: Path) -> None:
    labels = np.eye(4, dtype=np.float32)[_ANSWERS.argmax(axis=1)]
    _learn(tmp_path, responses=labels)

    _, trained = _learn(tmp_path, targets="argmax")

    assert trained == 0


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"epochs": 3},
        {"targets": "temperature:2"},
        {"surrogate": "compact"},
        {"training": SurrogateTraining(learning_rate=0.01)},
        {"images": _IMAGES[:, :, ::-1].copy()},
        {"responses": np.roll(_ANSWERS, 1, axis=0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_training_depends_on_makes_another_clone(tmp_path: Path, change) -> None:
    _learn(tmp_path)

    _, trained = _learn(tmp_path, **change)

    assert trained == change.get("epochs", 2)


def test_a_file_cut_off_is_trained_and_written_anew(tmp_path: Path) -> None:
    first, _ = _learn(tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-7])

    second, trained = _learn(tmp_path)

    assert trained == 2
    assert _equal(first.clone, second.clone)
    assert _learn(tmp_path)[1] == 0


def test_it_is_no_part_of_what_results_say_of_a_learner(tmp_path: Path) -> None:
    with_it = make_learner("filtered", surrogate="mlp", remember=tmp_path)

    assert with_it.settings == make_learner("filtered", surrogate="mlp").settings

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import (
    SURROGATES,
    PlainLearner,
    SurrogateTraining,
    TransferSet,
    build_surrogate,
)
from divqat_brevitas.extraction.learners.catalogue import make_learner
from divqat_brevitas.extraction.surrogates.networks import head_of, load_initial


@pytest.mark.slow  # trains clones
@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 9, 13)])
def test_any_shape_and_class_count(name: str, shape: tuple[int, int, int]) -> None:
    model = build_surrogate(name, shape, 7, seed=0)
    logits = model(torch.rand(4, *shape))
    assert logits.shape == (4, 7)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules())


@pytest.mark.parametrize("name", SURROGATES)
def test_seed_decides_and_global_state_stays(name: str) -> None:
    torch.manual_seed(5)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    a, b, c = (build_surrogate(name, (1, 8, 8), 10, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)
    torch.manual_seed(6)  # whatever the global state is
    again = build_surrogate(name, (1, 8, 8), 10, 1).state_dict()
    assert all(torch.equal(a[k], again[k]) for k in a)


@pytest.mark.parametrize("name", ["vgg-small", "vgg-medium"])
def test_pooling_before_the_relu_changes_no_bit(name: str) -> None:
    model = build_surrogate(name, (1, 12, 13), 5, seed=3)
    layers = list(model.children())
    pools = [at for at, layer in enumerate(layers) if isinstance(layer, torch.nn.MaxPool2d)]
    assert len(pools) == 3
    for at in pools:
        assert isinstance(layers[at + 1], torch.nn.ReLU)
        layers[at], layers[at + 1] = layers[at + 1], layers[at]
    usual = copy.deepcopy(torch.nn.Sequential(*layers))
    images = torch.rand(6, 1, 12, 13).round()  # black and white: windows with equal values
    logits = [net(images) for net in (model, usual)]
    assert torch.equal(*logits)
    for each in logits:
        each.square().sum().backward()
    gradients = [[p.grad for p in net.parameters()] for net in (model, usual)]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("name", "shape", "classes", "message"),
    [
        ("vgg-smal", (1, 8, 8), 10, "did you mean 'vgg-small'"),
        ("mlp", (1, 7, 8), 10, "at least 8"),
        ("mlp", (0, 8, 8), 10, "at least 8"),
        ("mlp", (8, 8), 10, "at least 8"),
        ("mlp", (1, 8, 8), 1, "at least 2 classes"),
    ],
)
def test_refusals(name: str, shape: tuple[int, int, int], classes: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_surrogate(name, shape, classes, 0)


def test_stored_weights_start_all_but_the_head(tmp_path) -> None:
    donor = build_surrogate("resnet-small", (1, 8, 8), 4, seed=1)
    save_file(donor.state_dict(), tmp_path / "donor.safetensors")
    net = build_surrogate("resnet-small", (1, 8, 8), 10, seed=2)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    load_initial(net, tmp_path / "donor.safetensors")
    head = head_of(net) + "."
    for key, value in net.state_dict().items():
        source = before if key.startswith(head) else donor.state_dict()
        assert torch.equal(value, source[key])


def test_unfit_weights_are_refused(tmp_path) -> None:
    net = build_surrogate("compact", (1, 8, 8), 10, seed=2)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    wrong = build_surrogate("vgg-small", (1, 8, 8), 10, seed=2)
    save_file(wrong.state_dict(), tmp_path / "wrong.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    for name, message in (
        ("wrong", "does not fit the surrogate"),
        ("broken", "cannot be read as safetensors"),
        ("absent", "do not exist"),
    ):
        with pytest.raises(InputError, match=message):
            load_initial(net, tmp_path / f"{name}.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


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

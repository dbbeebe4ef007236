import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from divqat_brevitas.errors import InputError, ToolMissingError
from divqat_brevitas.extraction import BudgetExceededError, TorchPredictor, Victim
from divqat_brevitas.interop import GradientError, as_torch_callable


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


class Counting(TorchPredictor):
    """Counts, at the model's own door, the images that come through."""

    images = 0

    def predict(self, images):
        self.images += len(images)
        return super().predict(images)


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).random((6, 1, 8, 8), np.float32))


def test_answers_are_the_oracles_and_are_counted(images):
    model = network()
    victim = Victim(model, oracle="logits", budget=10)
    answers = as_torch_callable(victim)(images)
    np.testing.assert_array_equal(answers.numpy(), TorchPredictor(model).predict(images.numpy()))
    assert not answers.requires_grad
    assert victim.queries_used == 6


def test_other_layouts_and_precisions_come_as_float32(images):
    ask = as_torch_callable(Victim(network(), oracle="top1", budget=100))
    expected = ask(images)
    for same in (images.double(), images.contiguous(memory_format=torch.channels_last)):
        assert torch.equal(ask(same), expected)


def test_gradients_are_refused_in_words(images):
    victim = Victim(network(), budget=10)
    answers = as_torch_callable(victim)(images.requires_grad_())
    with pytest.raises(GradientError, match="HopSkipJump"):
        answers.sum().backward()
    assert images.grad is None
    with pytest.raises(GradientError, match="returns only responses"):
        torch.autograd.grad(as_torch_callable(victim)(images[:1]).sum(), images)


def test_the_budget_holds(images):
    victim = Victim(network(), budget=5)
    with pytest.raises(BudgetExceededError):
        as_torch_callable(victim)(images)
    assert victim.queries_used == 0


def test_it_cannot_be_trained_and_has_nothing_to_take():
    module = as_torch_callable(Victim(network()))
    module.train()
    assert not module.training
    assert list(module.parameters()) == []
    assert module.state_dict() == {}


def test_arrays_are_refused():
    with pytest.raises(InputError, match="torch tensor"):
        as_torch_callable(Victim(network()))(np.zeros((1, 1, 8, 8), np.float32))


def test_foolbox_attacks_by_decisions_alone(images):
    foolbox = pytest.importorskip("foolbox", reason="foolbox is not installed")
    seen = Counting(network())
    victim = Victim(seen, oracle="top1", budget=3000)
    model = foolbox.PyTorchModel(as_torch_callable(victim), bounds=(0, 1), device="cpu")
    labels = model(images).argmax(dim=-1)
    assert victim.queries_used == 6
    # One picture of each class that is there: every class has another to start from.
    starts = torch.stack([images[int((labels != label).nonzero()[0])] for label in labels])
    attack = foolbox.attacks.BoundaryAttack(steps=5, tensorboard=False)
    _, found, success = attack(model, images, labels, epsilons=None, starting_points=starts)
    assert success.all()
    assert bool((model(found).argmax(dim=-1) != labels).all())
    assert victim.queries_used == seen.images > 12


def test_foolboxs_gradient_attacks_are_told(images):
    foolbox = pytest.importorskip("foolbox", reason="foolbox is not installed")
    victim = Victim(network(), oracle="soft", budget=100)
    model = foolbox.PyTorchModel(as_torch_callable(victim), bounds=(0, 1), device="cpu")
    with pytest.raises(GradientError):
        foolbox.attacks.FGSM()(model, images, torch.zeros(6, dtype=torch.int64), epsilons=0.1)


def test_the_package_imports_no_toolbox():
    code = (
        "import sys, divqat_brevitas.interop; "
        "print([m for m in ('art', 'foolbox') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_art_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "art.estimators.classification", None)
    monkeypatch.delitem(sys.modules, "divqat_brevitas.interop.art", raising=False)
    with pytest.raises(ToolMissingError, match=r"divqat\[art\]"):
        importlib.import_module("divqat_brevitas.interop.art")

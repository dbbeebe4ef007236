"""The assertions themselves: they pass where they should, and fail where they should."""

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.quant import Uint8ActPerTensorFloat
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import PlainLearner, TorchPredictor, Victim
from fpga_flow import load_engine
from fpga_flow.export import export_qonnx
from fpga_flow.testing import assert_bit_exact, assert_extraction_at_most


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8))
    return (pixels / np.float32(255)).astype(np.float32)


@pytest.fixture(scope="module")
def onnx(tmp_path_factory, images):
    torch.manual_seed(0)
    network = nn.Sequential(
        qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True),
        nn.Flatten(),
        qnn.QuantLinear(64, 4, bias=True, weight_bit_width=4),
    )
    with torch.no_grad():
        network(torch.from_numpy(images))
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    export_qonnx(network.eval(), path, torch.from_numpy(images[:8]))
    return path


class Off:
    """The integer engine with one wrong bit."""

    name = "off"

    def __init__(self, path, layer=0, logit=0, label=0):
        self.engine, self.layer = load_engine(path), layer
        self.logit, self.label = logit, label

    def predict(self, images):
        logits = self.engine.predict(images).copy()
        if self.logit:
            logits[7, 2] = np.nextafter(logits[7, 2], np.float32(np.inf))
        if self.label:
            logits[7] = -logits[7]
        return logits

    def accumulators(self, images):
        sums = self.engine.accumulators(images)
        if self.layer:
            next(iter(sums.values()))[[5, 9], 3] += 1
        return sums


def test_a_file_is_exact_in_other_engines(onnx, images):
    assert_bit_exact(onnx, "qonnx", images=images)
    assert_bit_exact(str(onnx), images=(images * 255).round().astype(np.uint8))


@pytest.mark.slow
@pytest.mark.needs_finn
@pytest.mark.needs_verilator
def test_a_file_is_exact_in_hardware(onnx, images):
    for engine in ("finn", "rtl"):
        assert_bit_exact(onnx, engine, images=images[:3])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"layer": 1}, "in layer .* differ on 2 of 60 images, first on image 5: value 3 is"),
        ({"label": 1}, "the labels of .* differ on 1 of 60 images, first on image 7: value 0 is"),
    ],
)
def test_one_bit_is_enough(onnx, images, monkeypatch, wrong, said):
    right, wrong_one = load_engine(onnx), Off(onnx, **wrong)
    monkeypatch.setattr(
        "fpga_flow.engines.load_engine",
        lambda path, engine="integer": wrong_one if engine == "qonnx" else right,
    )
    with pytest.raises(AssertionError, match=said):
        assert_bit_exact(onnx, "qonnx", images=images)


def test_predictors_victims_and_files_compare(onnx, images):
    engine = load_engine(onnx)
    assert_bit_exact(engine, onnx, images=images)
    assert_bit_exact(Victim(engine, "topk", 60, k=2), onnx, images=images)
    with pytest.raises(AssertionError, match="differ on 1 of 60"):
        assert_bit_exact(Off(onnx, logit=1), onnx, images=images)
    with pytest.raises(AssertionError, match="the victim's answers"):
        assert_bit_exact(Victim(Off(onnx, logit=1), "logits", 60), engine, images=images)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 9))
    with pytest.raises(AssertionError, match="differ in shape"):
        assert_bit_exact(other, onnx, images=images)


def test_bit_exact_refuses_what_cannot_be_compared(onnx, images):
    engine = load_engine(onnx)
    with pytest.raises(InputError, match="rounding:1"):
        assert_bit_exact(Victim(engine, defence="rounding:1"), onnx, images=images)
    with pytest.raises(InputError, match="did you mean 'qonnx'"):
        assert_bit_exact(onnx, "qonx", images=images)
    with pytest.raises(InputError, match="by name"):
        assert_bit_exact(onnx, engine, images=images)
    with pytest.raises(InputError, match="at least one image"):
        assert_bit_exact(onnx, images=images[:0])


def linear():
    """A victim that an attacker copies within seconds, its test set, and a pool."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    test, pool = (np.random.default_rng(s).random((300, 1, 8, 8), np.float32) for s in (1, 2))
    labels = TorchPredictor(model).predict(test).argmax(axis=1)
    return model, {"images": test, "labels": labels, "pool": pool}


QUICK = {"budget": 200, "seeds": (0, 1), "learner": PlainLearner(surrogate="mlp", epochs=3)}


def test_thefts_below_the_bound_pass_and_tell_their_accuracies():
    model, given = linear()
    found = assert_extraction_at_most(model, 1.0, **given, **QUICK)
    assert len(found) == 2
    # Repeatable, and every seed an extraction of its own with all of its budget.
    victim = Victim(model, budget=400)
    assert assert_extraction_at_most(victim, 1.0, **given, **QUICK) == found
    assert victim.queries_used == 400


def test_a_theft_above_the_bound_fails_with_every_seeds_accuracy():
    model, given = linear()
    found = assert_extraction_at_most(model, 1.0, **given, **QUICK)
    bound = max(found) - 1e-9  # accuracies are multiples of 1/300
    with pytest.raises(AssertionError, match=rf"{found[0]:.4f} \(seed 0\), {found[1]:.4f}"):
        assert_extraction_at_most(model, bound, **given, **QUICK)
    assert assert_extraction_at_most(model, max(found), **given, **QUICK) == found


def test_a_file_is_attacked_through_integers(onnx, images):
    labels = load_engine(onnx).predict(images).argmax(axis=1)
    options = QUICK | {"budget": 40, "oracle": "top1", "attack": "copycat", "seeds": [3]}
    assert (
        len(
            assert_extraction_at_most(onnx, 1, images=images, labels=labels, pool=images, **options)
        )
        == 1
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"bound": 1.2}, "fraction of 1"),
        ({"bound": float("nan")}, "fraction of 1"),
        ({"seeds": ()}, "no seed"),
        ({"attack": "knockof-random"}, "did you mean 'knockoff-random'"),
        ({"labels": np.zeros(3, np.int64)}, "300 integers"),
        ({"victim": Victim(nn.Flatten(), budget=399)}, "need 400"),
        ({"defence": "dpc"}, "unknown defence"),
    ],
)
def test_wrong_arguments_are_refused_before_the_theft(wrong, said):
    model, given = linear()
    arguments = {"victim": model, "bound": 1.0} | given | QUICK | wrong
    with pytest.raises(InputError, match=said):
        assert_extraction_at_most(arguments.pop("victim"), arguments.pop("bound"), **arguments)

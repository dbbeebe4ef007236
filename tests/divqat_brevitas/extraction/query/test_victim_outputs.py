"""Probabilities are declared or recognised; no oracle takes a softmax of them."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import TorchPredictor, Victim, as_predictor, softmax
from divqat_brevitas.extraction.defences import DefendedPredictor, make_defence
from divqat_brevitas.extraction.oracles import ORACLES

F32 = NDArray[np.float32]


def network(*last: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), *last)
    with torch.no_grad():
        net[1].weight.mul_(20)  # sure of itself, as a trained network is
    return net.eval()


SOFTMAX, LOGITS = network(nn.Softmax(dim=1)), network()


class Given:
    """Responses by a function of the images' first pixels."""

    def __init__(self, response: object) -> None:
        self.response = response
        self.asked = 0

    def predict(self, images: F32) -> F32:
        self.asked += 1
        return np.asarray(self.response(images.reshape(len(images), -1)[:, :2]), np.float32)


@pytest.mark.parametrize("oracle", ORACLES)
def test_undeclared_probabilities_are_refused_before_the_first_answer(
    oracle: str, images: F32
) -> None:
    for count in (1, len(images)):
        victim = Victim(SOFTMAX, oracle, budget=20)
        with pytest.raises(InputError, match=r"on all of 4 batches.*outputs='probabilities'"):
            victim.query(images[:count])
        assert victim.queries_used == 0
    with pytest.raises(InputError, match="probabilities, not logits"):
        DefendedPredictor(SOFTMAX, make_defence("rounding:1")).predict(images)


def test_the_owner_asks_within_the_range_that_the_model_declares() -> None:
    model = TorchPredictor(nn.Sequential(nn.Linear(6, 3), nn.Softmax(dim=1)), input_range=(2, 9))
    features = np.random.default_rng(0).uniform(2, 9, (4, 6)).astype(np.float32)
    with pytest.raises(InputError, match="on all of 4 batches"):
        Victim(model).query(features)
    shown = Victim(model, outputs="probabilities").query(features)
    np.testing.assert_allclose(shown, model.predict(features), rtol=4e-7, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_probabilities_of_half_precision_are_recognised(dtype: torch.dtype, images: F32) -> None:
    class Half(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return SOFTMAX(x).to(dtype)

    with pytest.raises(InputError, match="probabilities, not logits"):
        Victim(Half()).query(images)


@pytest.mark.parametrize("oracle", [name for name in ORACLES if name != "logits"])
@pytest.mark.parametrize("defence", ["none", "rounding:2", "reverse-sigmoid:0.5"])
def test_declared_probabilities_are_shown_as_the_logits_would_be(
    oracle: str, defence: str, images: F32
) -> None:
    declared = Victim(SOFTMAX, oracle, defence=defence, outputs="probabilities").query(images)
    expected = Victim(LOGITS, oracle, defence=defence).query(images)
    # The softmax of torch and ours round differently, in float32; a rounded place may tip over.
    places = 1e-2 if "round" in oracle + defence else 1e-6
    np.testing.assert_allclose(declared, expected, rtol=0, atol=places * 1.001)
    assert np.array_equal(declared.argmax(axis=1), expected.argmax(axis=1))


def test_declared_probabilities_come_back_to_the_last_place(images: F32) -> None:
    with torch.no_grad():
        own = SOFTMAX(torch.from_numpy(images)).numpy()
    shown = Victim(SOFTMAX, "soft", outputs="probabilities").query(images)
    np.testing.assert_allclose(shown, own, rtol=4e-7, atol=0)  # their sums are 1 up to float32
    assert own.max() > 0.9
    assert softmax(own).max() < 0.41  # what a second softmax would have shown
    defended = DefendedPredictor(SOFTMAX, make_defence("none"), outputs="probabilities")
    np.testing.assert_allclose(softmax(defended.predict(images)), own, rtol=1e-5, atol=1e-7)


def test_probabilities_have_no_logits_to_show() -> None:
    with pytest.raises(InputError, match="no logits to show"):
        Victim(SOFTMAX, "logits", outputs="probabilities")
    with pytest.raises(InputError, match="did you mean 'probabilities'"):
        Victim(SOFTMAX, outputs="probability")
    with pytest.raises(InputError, match="declared as probabilities"):
        Victim(LOGITS, outputs="probabilities").query(np.ones((2, 1, 8, 8), np.float32))


def test_rounded_probabilities_of_a_service_are_taken(images: F32) -> None:
    with torch.no_grad():
        rounded = SOFTMAX(torch.from_numpy(images)).numpy().round(2)
    service = Given(lambda pixels: rounded)
    shown = Victim(service, outputs="probabilities").query(images)
    np.testing.assert_allclose(shown, rounded, rtol=0, atol=0.005 * 5)


@pytest.mark.parametrize(
    ("response", "calls"),
    [
        # Sum 1, and negative entries.
        (lambda p: np.stack([p[:, 0] * 3, 1 - p[:, 0] * 3], axis=1), 1),
        # Sum 1 and not negative for the first question, a black image, and not for others.
        (lambda p: np.stack([1 + p[:, 0], p[:, 1]], axis=1), 2),
        # A network that answers alike whatever it sees.
        (lambda p: np.tile([0.25, 0.75], (len(p), 1)), 4),
    ],
)
def test_logits_that_look_like_probabilities_once_are_logits(response: object, calls: int) -> None:
    predictor, black = Given(response), np.zeros((1, 1, 8, 8), np.float32)
    victim = Victim(predictor, "logits", budget=3)
    first = black + np.float32(0.9 if calls == 1 else 0)
    expected = np.asarray(response(first.reshape(1, -1)[:, :2]), np.float32)
    assert np.array_equal(victim.query(first), expected)
    assert predictor.asked == calls
    victim.query(first)
    assert predictor.asked == calls + 1  # examined once
    assert victim.queries_used == 2


def build() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))
    model[1].running_mean.fill_(0.3)
    return model


def test_predicts_in_eval_mode_in_any_batch_size(images: np.ndarray) -> None:
    model = build().train()
    expected = build_logits(model, images)
    for batch_size in (1, 3, 10, 100):
        logits = TorchPredictor(model, batch_size).predict(images)
        assert logits.dtype == np.float32
        # Sums of 144 float32 products, in another order for another batch size.
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def build_logits(model: nn.Module, images: np.ndarray) -> np.ndarray:
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor(images)).numpy()
    model.train()
    return logits


def test_leaves_the_module_as_it_was(images: np.ndarray) -> None:
    model = build().train()
    model[1].eval()  # a frozen batch norm inside a training model
    state = {k: v.clone() for k, v in model.state_dict().items()}
    TorchPredictor(model).predict(images)
    assert [m.training for m in model] == [True, False, True, True]
    assert model.training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_flags_return_after_a_failure() -> None:
    model = build().train()
    with pytest.raises(InputError, match=r"cannot predict images of shape \(2, 3, 8, 8\)"):
        TorchPredictor(model).predict(np.zeros((2, 3, 8, 8), np.float32))
    assert model[1].training


def test_quant_tensor_is_unwrapped(images: np.ndarray) -> None:
    from brevitas.nn import QuantIdentity

    quantized = nn.Sequential(nn.Flatten(), QuantIdentity(return_quant_tensor=True))
    logits = TorchPredictor(quantized).predict(images)
    quantized.eval()
    with torch.no_grad():
        expected = quantized(torch.tensor(images)).value.numpy()
    assert np.array_equal(logits, expected)


def test_read_only_images_are_fine(images: np.ndarray, recwarn: pytest.WarningsRecorder) -> None:
    images.flags.writeable = False
    assert TorchPredictor(build()).predict(images).shape == (10, 5)
    assert not recwarn


def test_as_predictor(spy: object) -> None:
    assert as_predictor(spy) is spy  # type: ignore[arg-type]
    assert isinstance(as_predictor(build()), TorchPredictor)
    with pytest.raises(InputError, match="a list cannot be attacked"):
        as_predictor([])  # type: ignore[arg-type]

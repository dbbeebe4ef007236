import numpy as np
import pytest
import torch
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import TorchPredictor, as_predictor


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

import numpy as np
import pytest
import torch

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import SURROGATES, build_surrogate


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


def test_capacity_grows_from_small_to_medium() -> None:
    sizes = {
        name: sum(p.numel() for p in build_surrogate(name, (3, 32, 32), 10, 0).parameters())
        for name in SURROGATES
    }
    assert sizes["vgg-small"] < sizes["vgg-medium"]
    assert sizes["resnet-small"] < sizes["vgg-small"]


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

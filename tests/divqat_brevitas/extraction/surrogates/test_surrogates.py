import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import SURROGATES, build_surrogate
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


def test_wide_and_compact_are_twice_and_half_of_small() -> None:
    def widths(name: str) -> list[int]:
        net = build_surrogate(name, (3, 32, 32), 10, 0)
        return [m.out_channels for m in net.modules() if isinstance(m, torch.nn.Conv2d)]

    small = widths("vgg-small")
    assert widths("vgg-wide") == [2 * w for w in small]
    assert widths("compact") == [w // 2 for w in small] == [16, 32, 64]
    # ResNet-20: a first layer, 3 x 3 blocks of two, two shortcuts of 1 x 1, and the linear layer.
    assert len(widths("resnet-medium")) == 1 + 18 + 2


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

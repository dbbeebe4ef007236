"""Networks that cannot be copied: one sentence names the module and the remedy."""

import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from divqat_brevitas import freeze_reference, swap_quantizers
from divqat_brevitas.copies import deep_copy
from divqat_brevitas.errors import InputError


class Net(nn.Module):
    """A network whose parts are to be spoilt."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        self.head = nn.Linear(4 * 36, 3)
        self.seen: object = None

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class Keeps(Net):
    """Keeps an activation, as code for saliency maps does."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = {"last": [self.features(x)]}
        return self.head(self.seen["last"][0].flatten(1))


def pruned() -> nn.Module:
    net = Net()
    prune.l1_unstructured(net.features[0], "weight", 0.5)
    prune.random_unstructured(net.features[0], "bias", 0.5)
    return net


def old_norm(function: Callable[[nn.Module], nn.Module]) -> nn.Module:
    net = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and in use
        function(net.head)
    net(torch.rand(2, 1, 8, 8))
    return net


def keeping() -> nn.Module:
    net = Keeps()
    net(torch.rand(2, 1, 8, 8))
    return net


def locked() -> nn.Module:
    net = Net()
    net.features[1].guard = threading.Lock()
    return net


SPOILT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "pruned": (pruned, r"features\.0 \(Conv2d\) is pruned: .*prune\.remove\(module, 'weight'\)"),
    "weight norm": (
        lambda: old_norm(torch.nn.utils.weight_norm),
        r"head \(Linear\) has old-style weight .*remove_weight_norm.*parametrizations\.weight_norm",
    ),
    "spectral norm": (
        lambda: old_norm(torch.nn.utils.spectral_norm),
        r"head \(Linear\) has old-style spectral .*remove_spectral_norm",
    ),
    "activation": (
        keeping,
        r"the model itself \(Keeps\) keeps .*self\.seen: keep seen\.detach\(\)",
    ),
    "lock": (locked, r"features\.1 \(ReLU\) holds a lock in self\.guard"),
}


@pytest.mark.parametrize("take", [swap_quantizers, freeze_reference, deep_copy])
@pytest.mark.parametrize("spoilt", SPOILT)
def test_what_cannot_be_copied_is_named_with_the_remedy(
    spoilt: str, take: Callable[[nn.Module], nn.Module]
) -> None:
    make, message = SPOILT[spoilt]
    with pytest.raises(InputError, match=message) as raised:
        take(make())
    assert "\n" not in str(raised.value)
    assert str(raised.value).count("cannot be copied") == 1


def test_the_remedy_works() -> None:
    net = pruned()
    for name in ("weight", "bias"):
        prune.remove(net.get_submodule("features.0"), name)
    assert swap_quantizers(net)(torch.rand(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize("kind", ["frozen and pruned", "parametrized"])
def test_a_weight_that_is_computed_anew_is_not_swapped_away(kind: str) -> None:
    """These can be copied; a quantized layer would drop the mask or the norm silently."""
    net = pruned() if kind == "frozen and pruned" else Net()
    if kind == "parametrized":
        parametrizations.weight_norm(net.head)
        message = r"head \(ParametrizedLinear\) has a parametrization of 'weight': .*remove_param"
    else:
        net.requires_grad_(False)
        net(torch.rand(2, 1, 8, 8))
        message = r"features\.0 \(Conv2d\) is pruned"
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(freeze_reference(net)(x), net(x))
    with pytest.raises(InputError, match=message) as raised:
        swap_quantizers(net)
    assert str(raised.value).count(";") == 0  # nothing else is wrong with it


def test_export_copies_by_the_same_rule(tmp_path: Path) -> None:
    pytest.importorskip("qonnx")
    from fpga_flow import export_qonnx

    net = swap_quantizers(Net())
    net.seen = net(torch.rand(1, 1, 8, 8))
    with pytest.raises(InputError, match=r"self\.seen: keep seen\.detach\(\)"):
        export_qonnx(net, tmp_path / "model.onnx", torch.rand(4, 1, 8, 8))

"""The loss against its derivation (module docstring of divqat_brevitas.quant.loss)."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from divqat_brevitas import DivQATLoss, freeze_reference
from divqat_brevitas.errors import InputError
from divqat_brevitas.quant.loss import PRESETS, divergence_per_image

N, CLASSES = 16, 5


def reference() -> nn.Module:
    return freeze_reference(nn.Sequential(nn.Linear(7, CLASSES), nn.BatchNorm1d(CLASSES)))


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(N, 7), torch.randn(N, CLASSES), torch.randint(0, CLASSES, (N,))


@pytest.mark.parametrize("preset", ["literal", "nasty"])
def test_weight_zero_is_plain_qat_bit_for_bit(preset: str, batch: tuple) -> None:
    x, z, y = batch
    ours, plain = z.clone().requires_grad_(), z.clone().requires_grad_()
    loss = DivQATLoss(reference(), preset, weight=0.0)(ours, y, inputs=x)
    expected = F.cross_entropy(plain, y)
    loss.backward(), expected.backward()
    assert torch.equal(loss, expected)
    assert torch.equal(ours.grad, plain.grad)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_forward_kl_gradient_is_the_derived_one(alpha: float, batch: tuple) -> None:
    x, z, y = batch
    z = z.requires_grad_()
    ref = reference()
    DivQATLoss(ref, "literal", weight=alpha, warmup=0.0, cap=1e9)(z, y, inputs=x).backward()
    p, q = ref(x).softmax(1), z.detach().softmax(1)
    derived = ((1 - alpha) * q - F.one_hot(y, CLASSES) + alpha * p) / N
    torch.testing.assert_close(z.grad, derived, rtol=1e-5, atol=1e-7)  # float32 rounding


def test_reverse_kl_gradient_is_the_derived_one(batch: tuple) -> None:
    x, z, _ = batch
    z, ref = z.requires_grad_(), reference()
    divergence_per_image(ref(x), z, "reverse").sum().backward()
    log_p, q = ref(x).log_softmax(1), z.detach().softmax(1)
    gain = q.log() - log_p
    derived = q * (gain - (q * gain).sum(1, keepdim=True))
    torch.testing.assert_close(z.grad, derived, rtol=1e-5, atol=1e-6)  # float32 rounding


def test_divergences_against_scipy(batch: tuple) -> None:
    from scipy.spatial.distance import jensenshannon
    from scipy.special import rel_entr

    x, z, _ = batch
    r = reference()(x)
    p, q = (r / 2).double().softmax(1).numpy(), (z / 2).double().softmax(1).numpy()
    expected = {
        "forward": rel_entr(p, q).sum(1),
        "reverse": rel_entr(q, p).sum(1),
        "js": jensenshannon(p, q, axis=1) ** 2,
    }
    for order, values in expected.items():
        ours = divergence_per_image(r, z, order, temperature=2.0)  # type: ignore[arg-type]
        torch.testing.assert_close(ours.double(), torch.tensor(values), rtol=1e-4, atol=1e-6)
        assert torch.allclose(
            divergence_per_image(z, z, order),  # type: ignore[arg-type]
            torch.zeros(N),
            atol=1e-6,
        )


def test_reference_never_moves(batch: tuple) -> None:
    x, _, y = batch
    net = nn.Sequential(nn.Linear(7, CLASSES), nn.BatchNorm1d(CLASSES))
    ref = freeze_reference(net)
    before = copy.deepcopy(ref.state_dict())
    criterion = DivQATLoss(ref, "nasty", weight=1.0, warmup=0.0)
    criterion.train()  # what a training loop does to everything it holds
    ref.requires_grad_(True)
    parameters = [*net.parameters(), *criterion.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        criterion(net(x), y, inputs=x).backward()
        optimizer.step()
    after = ref.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not any(
        torch.equal(a, b) for a, b in zip(net.parameters(), ref.parameters(), strict=True)
    )


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("order", ["forward", "reverse", "js"])
def test_finite_at_extreme_logits(preset: str, order: str) -> None:
    extreme = torch.tensor([[50.0, -50.0, 0.0], [-50.0, 50.0, 50.0]])

    class Opposite(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -x

    z = extreme.clone().requires_grad_()
    loss = DivQATLoss(Opposite().eval(), preset, order=order, warmup=0.0, ood_pool="")(
        z, torch.tensor([0, 1]), inputs=extreme
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


def test_cap_stops_the_gradient(batch: tuple) -> None:
    x, z, y = batch
    capped, plain = z.clone().requires_grad_(), z.clone().requires_grad_()
    DivQATLoss(reference(), "nasty", weight=1.0, cap=0.0, warmup=0.0)(
        capped, y, inputs=x
    ).backward()
    F.cross_entropy(plain, y).backward()
    assert torch.equal(capped.grad, plain.grad)


def test_warmup_raises_the_weight_linearly() -> None:
    criterion = DivQATLoss(reference(), "nasty", weight=0.4, warmup=0.5)
    weights = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        criterion.progress = progress
        weights.append(criterion.weight)
    assert weights == pytest.approx([0.0, 0.2, 0.4, 0.4])


def test_terms_add_up(batch: tuple) -> None:
    x, z, y = batch
    criterion = DivQATLoss(reference(), "convex", weight=0.3, warmup=0.0)
    total = criterion(z, y, inputs=x)
    t = criterion.terms
    torch.testing.assert_close(t["total"], total)
    torch.testing.assert_close(t["total"], 0.7 * t["cross_entropy"] - t["weight"] * t["divergence"])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"preset": "nasti"}, "nasty"),
        ({"temprature": 2.0}, "temperature"),
        ({"temperature": 0.0}, "above 0"),
        ({"order": "backward"}, "forward"),
        ({"weight": -1.0}, "at least 0"),
        ({"weight": float("nan")}, "at least 0"),
    ],
)
def test_bad_settings_are_refused(kwargs: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DivQATLoss(reference(), **kwargs)


def test_an_unfrozen_reference_is_refused() -> None:
    with pytest.raises(InputError, match="freeze_reference"):
        DivQATLoss(nn.Linear(2, 2))

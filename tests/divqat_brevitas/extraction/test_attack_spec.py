"""attack specs by name: what is refused beforehand, and how many images a pool has."""

import pytest

from divqat_brevitas.data import load, query_pool
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.attack_spec import AttackSpec, check, draw_queries, pool_size


@pytest.mark.parametrize(
    ("pool", "says"),
    [
        ("letterz", "did you mean 'letters'"),
        ("dataset:cifar1000", "did you mean 'cifar100'"),
        ("mix:in:0.05,letterz", "did you mean 'letters'"),
        ("mix:in:1.5,letters", "is no mixture"),
        ("mix:in:0.5,in", "is no mixture"),
        ("mix:dataset:mnist5:0.5,in", "did you mean 'mnist5k'"),
    ],
)
def test_pools_are_looked_up_before_anything_is_trained(pool: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check(AttackSpec(pool=pool))


@pytest.mark.parametrize(
    "pool", ["in", "letters", "noise", "photos:/no/such", "dataset:cifar10:5-9", "mix:in:0.1,fonts"]
)
def test_known_pools_pass_whether_or_not_their_images_are_there(pool: str) -> None:
    check(AttackSpec(pool=pool))


def test_an_attack_without_a_pool_needs_no_name() -> None:
    check(AttackSpec(attack="dfme", pool="none", budget=1000))


@pytest.mark.parametrize(
    ("pool", "share"), [("mix:in:0.5,letters", 0.5), ("mix:letters:0.2,in", 0.8)]
)
def test_a_mixture_has_as_many_images_as_its_finite_parts_allow(pool: str, share: float) -> None:
    held = len(load("digits", "pool")[1])
    there = pool_size(pool, "digits")
    assert there is not None
    assert (held - 2) / share - 1 <= there <= held / share
    for seed in range(3):
        assert len(query_pool(pool, "digits", there, seed).images) == there
    spec = AttackSpec(pool=pool, budget=1000)
    assert len(draw_queries(spec, "digits", fewer=True).images) == there
    with pytest.raises(InputError, match=f"'in' has {held} images"):
        draw_queries(spec, "digits")


def test_a_mixture_of_endless_parts_does_not_run_out() -> None:
    assert pool_size("mix:letters:0.5,noise", "digits") is None

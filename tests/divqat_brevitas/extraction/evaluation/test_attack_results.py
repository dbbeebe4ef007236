from dataclasses import asdict
from typing import Any

import pytest

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import AttackRow

FIELDS = [
    "victim", "victim_seed", "engine", "oracle", "defence", "attack", "treatment", "pool",
    "pool_kind", "budget", "queries_used", "surrogate", "seed", "clone_accuracy", "agreement",
]  # fmt: skip


def row(**changes: Any) -> AttackRow:
    base: dict[str, Any] = {
        "victim": "qat",
        "victim_seed": 0,
        "engine": "integer",
        "oracle": "soft",
        "attack": "knockoff-random",
        "treatment": "soft",
        "pool": "letters",
        "pool_kind": "out",
        "budget": 1000,
        "queries_used": 1000,
        "surrogate": "vgg-small",
        "seed": 0,
        "clone_accuracy": 0.5,
        "agreement": 0.5,
    }
    return AttackRow(**(base | changes))


def test_row_has_exactly_the_contracts_fields() -> None:
    assert list(asdict(row())) == FIELDS
    assert row().defence == "none"
    assert row(defence="reverse-sigmoid:0.5+top1").defence == "reverse-sigmoid:0.5+top1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"oracle": "label"}, "unknown oracle"),
        ({"defence": "maad"}, "unknown defence"),
        ({"pool_kind": "ood"}, "unknown pool kind"),
        ({"queries_used": 1001}, "budget of 1000"),
        ({"clone_accuracy": 91.0}, "fraction"),
        ({"agreement": float("nan")}, "fraction"),
    ],
)
def test_row_refuses(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        row(**changes)

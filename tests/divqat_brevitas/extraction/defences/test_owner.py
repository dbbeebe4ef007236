"""A victim's owner finds the strength of its defences on its own validation images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import TorchPredictor, softmax
from divqat_brevitas.extraction.defences import cost_of
from divqat_brevitas.extraction.defences.owner import Defender

DRAWN = np.random.default_rng(0).integers(0, 256, (1200, 1, 8, 8), np.uint8)


def network(seed: int, factor: float) -> TorchPredictor:
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(64, 4)
    with torch.no_grad():
        layer.weight.copy_(factor * torch.randn(4, 64, generator=generator))
        layer.bias.zero_()
    return TorchPredictor(nn.Sequential(nn.Flatten(), layer).eval())


class Counted:
    """A predictor that counts the calls."""

    def __init__(self, predictor: TorchPredictor) -> None:
        self.predictor, self.calls = predictor, 0

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.calls += 1
        return self.predictor.predict(images)


def defender(folder: Path | None = None, **changed: object) -> Defender:
    given = {"data": lambda: (DRAWN, np.arange(len(DRAWN)) % 4), "classes": 4, "seed": 1}
    return Defender(**given | {"folder": folder, "validation": lambda: DRAWN} | changed)


def test_each_victim_gets_a_strength_of_its_own_at_one_cost() -> None:
    owner, victims = defender(), [network(0, 0.2), network(1, 2.0)]
    found = [owner.at_cost("reverse-sigmoid@0.2", 0, victim) for victim in victims]
    assert found[0].strength != found[1].strength
    images = DRAWN.astype(np.float32) / 255
    for one, victim in zip(found, victims, strict=True):
        assert one.cost.l1 == pytest.approx(0.2, rel=0.02)
        defence = owner.defence("reverse-sigmoid@0.2", 0, victim)
        assert defence.name == one.spec
        # On all 1,200 instead of the 1,000 of validation: near, not equal.
        everywhere = cost_of(defence, images, softmax(victim.predict(images))).l1
        assert everywhere == pytest.approx(one.cost.l1, rel=0.1)
        assert everywhere != one.cost.l1


def test_what_is_found_is_kept_and_found_again(tmp_path: Path) -> None:
    victim = network(0, 1.0)
    first = defender(tmp_path).at_cost("gate:0:0.05+noise@0.2", 5, victim)
    (file,) = tmp_path.glob("*.json")
    assert defender(tmp_path).at_cost("gate:0:0.05+noise@0.2", 5, victim) == first
    assert defender().at_cost("gate:0:0.05+noise@0.2", 5, victim) == first
    # It is read, not found anew.
    text = file.read_text("utf-8")
    file.write_text(text.replace('"shortfall": ""', '"shortfall": "as kept"'), "utf-8")
    assert defender(tmp_path).at_cost("gate:0:0.05+noise@0.2", 5, victim).shortfall == "as kept"
    # Another victim, seed or cost is another thing to find.
    owner = defender(tmp_path)
    owner.at_cost("gate:0:0.05+noise@0.2", 5, network(1, 1.0))
    owner.at_cost("gate:0:0.05+noise@0.2", 6, victim)
    owner.at_cost("gate:0:0.05+noise@0.3", 5, victim)
    assert len(list(tmp_path.glob("*.json"))) == 4


def test_a_strength_needs_neither_victim_nor_validation_images() -> None:
    plain = defender(validation=None)
    assert plain.at_cost("reverse-sigmoid:0.5") is None
    assert plain.defence("gate:0:0.05+rounding:1").name == "gate:0:0.05+rounding:1"
    for owner, victim in ((plain, network(0, 1.0)), (defender(), None)):
        with pytest.raises(InputError, match="responses to validation images"):
            owner.defence("dcp@0.2", 0, victim)


def test_a_victim_is_asked_for_validation_images_alone() -> None:
    victim = Counted(network(0, 1.0))
    owner = defender()
    owner.at_cost("dcp@0.2", 0, victim)
    assert victim.calls == 1
    owner.defence("dcp:0.7", 0, victim)
    assert victim.calls == 1

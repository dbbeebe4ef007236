"""An attacker's own edition of a victim is trained in the shape of the images it will ask about."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.extraction.shadows import shadow_pairs
from benchmarks.extraction.specs import VictimSpec
from benchmarks.extraction.victims import VictimStore
from divqat_brevitas.data.cache import staging, store
from divqat_brevitas.extraction.attack_spec import AttackSpec, QuerySet


@pytest.mark.slow  # trains and attacks
def test_a_shadow_of_a_decoy_with_photographs_takes_coloured_ones(tmp_path: Path, monkeypatch):
    """Its labelled set is grey, the victim's images are not."""
    monkeypatch.setattr("divqat_brevitas.training.reject_class._COUNT", 50)
    for name in ("landscapes", "backgrounds"):
        picture = tmp_path / f"{name}.png"
        Image.linear_gradient("L").convert("RGB").save(picture)
        with staging(tmp_path, name) as work:
            store(tmp_path, name, {"p.png": picture.read_bytes()}, work)
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), np.uint8)
    spec = VictimSpec(
        dataset="digits",
        model="digits-cnn",
        variant="divqat-decoy-photos",
        float_epochs=1,
        quant_epochs=1,
    )
    attack = AttackSpec(attack="knockoff-random", learner="recovery", pool="photos", budget=6)
    queries = QuerySet("photos", "out", images, (3, 8, 8))
    pairs = shadow_pairs(spec, attack, queries, VictimStore(tmp_path / "work", root=tmp_path))
    assert pairs.defended.shape == pairs.undefended.shape == (6, 10)

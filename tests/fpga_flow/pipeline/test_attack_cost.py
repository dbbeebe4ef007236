"""A run's attack stage takes defences by their cost, and says how strong they were for it."""

import pytest
from small_attack import SETTINGS, attack_rows

from divqat_brevitas.data import load
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import softmax
from divqat_brevitas.extraction.arrays import to_float
from divqat_brevitas.extraction.defences import at_cost
from fpga_flow.engines import load_engine
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.stages import attack


def test_a_row_has_the_strength_found_on_validation_images(tmp_path):
    found = attack_rows(tmp_path, "attack.defences=reverse-sigmoid@0.2,dcp:0.7")
    rows = {row["defence"]: row for row in found}
    assert set(rows) == {"reverse-sigmoid@0.2", "dcp:0.7"}
    assert "defence_found" not in rows["dcp:0.7"]
    images = to_float(load("digits", "val")[0])
    answers = softmax(load_engine(tmp_path / "export" / "qat.onnx").predict(images))
    row = rows["reverse-sigmoid@0.2"]
    # A smaller split than 1,000 images is taken whole; its order does not count but for rounding.
    expected = at_cost("reverse-sigmoid@0.2", answers, images)
    assert row["defence_found"]["spec"] == expected.spec
    assert row["defence_l1"] == pytest.approx(expected.cost.l1, rel=1e-12)


def test_bad_costs_are_refused_before_training():
    for name, says in (("rounding@0.2", "no continuous strength"), ("dcp@3", "up to 2")):
        with pytest.raises(InputError, match=says):
            attack.check(resolve(overrides=[*SETTINGS, f"attack.defences={name}"]))

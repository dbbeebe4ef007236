import json
import math
import random
import xml.etree.ElementTree as ET

import pytest

from benchmarks.speed import costs
from benchmarks.speed.cost_work import Size, _network
from benchmarks.speed.power_law import fit
from benchmarks.speed.runner import publish
from benchmarks.speed.suite import Context
from divqat_brevitas.errors import CheckFailedError
from fpga_flow.compile.worker_process import finn_installed
from fpga_flow.report.charts import save

SIZES = (16, 32, 64, 128, 256)


def made_up(exponent, stage="train", axis="images"):
    """Rows of a stage whose time is a power of its size."""
    return [
        {
            "stage": stage,
            "axes": [axis],
            "images": size,
            "width": 16,
            "bits": 4,
            "parameters": 100,
            "memory": 1000 * size,
            "seconds": [99.0, 0.001 * size**exponent, 0.0],
        }
        for size in SIZES
    ]


def test_an_exact_power_is_found_exactly():
    law = fit(SIZES, [3 * size**1.5 for size in SIZES])
    # Rounding of the logarithms alone: a few units in the last place of a double.
    assert law.exponent == pytest.approx(1.5, abs=1e-12)
    assert law.factor == pytest.approx(3, rel=1e-12)
    assert law.low == pytest.approx(law.high, abs=1e-10)
    assert law.points == 5


def test_the_interval_holds_the_exponent_as_often_as_it_says():
    draw = random.Random(0)
    trials = 400
    held = 0
    for _ in range(trials):
        costs_ = [size**0.8 * math.exp(draw.gauss(0, 0.1)) for size in SIZES]
        law = fit(SIZES, costs_)
        held += law.low <= 0.8 <= law.high
    # 95 % of 400 with a binomial standard deviation of 4.4; four of them on either side.
    assert 380 - 4 * 4.4 <= held <= 380 + 4 * 4.4


def test_what_has_no_logarithm_or_too_few_sizes_has_no_fit():
    assert fit([1, 2], [1, 2]) is None
    assert fit([1, 2, 2], [1, 2, 2]) is None
    assert fit([1, 2, 3], [0, 1, 2]) is None


def test_fits_are_of_medians_along_each_axis_alone():
    rows = made_up(1.0) + made_up(2.0, "attack", "parameters")
    found = {(law["stage"], law["axis"], law["cost"]): law for law in costs.fits(rows)}
    assert found["train", "images", "seconds"]["exponent"] == pytest.approx(1, abs=1e-12)
    assert found["train", "images", "memory"]["exponent"] == pytest.approx(1, abs=1e-12)
    assert found["train", "images", "seconds"]["range"] == [16, 256]
    # All of the attack's rows have one number of parameters: there is no line to draw.
    assert set(found) == {("train", "images", "seconds"), ("train", "images", "memory")}
    rows[0]["memory"] = None
    assert [law["cost"] for law in costs.fits(rows)] == ["seconds"]


@pytest.mark.slow  # measures
def test_every_axis_but_bits_spans_a_decade_of_sizes():
    for name, stage in costs.STAGES.items():
        points = costs.sizes(stage, costs.BASE)
        assert len(points) == len({size for _, size in points})
        images = [size.images for axes, size in points if "images" in axes]
        widths = [size.width for axes, size in points if "parameters" in axes]
        assert name == "compile" or max(images) >= 10 * min(images)
        parameters = [sum(p.numel() for p in _network(width).parameters()) for width in widths]
        assert max(parameters) >= 10 * min(parameters)


@pytest.fixture(scope="module")
def record():
    return costs.measure(Context(rounds=1, quick=True))


@pytest.mark.slow  # measures
def test_a_quick_run_measures_every_stage_that_needs_no_finn(record):
    assert {row["stage"] for row in record["rows"]} == {"train", "export", "engine", "attack"}
    assert record["not_run"] == {"compile": "quick"}
    for row in record["rows"]:
        assert row["axes"] == ["images"]
        assert len(row["seconds"]) == 1
        assert row["seconds"][0] > 0
        assert row["parameters"] == 1 * 4 * 9 + 8 + 4 * 8 * 9 + 16 + (8 * 16 + 1) * 10
    json.dumps(record, allow_nan=False)


def test_the_page_has_the_exponents_and_the_curves(record, tmp_path):
    rows = made_up(1.0) + made_up(2.0, "attack")
    whole = record | {"rows": rows, "fits": costs.fits(rows)}
    section = costs.section(whole)
    assert "| training, a QAT step | 1.00 [1.00, 1.00] | – |" in "\n".join(section.lines)
    assert "Not run: FINN build: quick." in section.lines
    assert [(line.ours, line.value) for line in section.summary] == [
        ("training, a QAT step", "1.00 [1.00, 1.00]"),
        ("attack, a clone's epoch", "2.00 [2.00, 2.00]"),
    ]
    drawing = ET.parse(save(costs.charts(whole), tmp_path / "costs.svg"))
    texts = {text.text for text in drawing.iter() if text.tag.endswith("text")}
    assert {"Time by images", "Peak memory by images"} <= texts
    assert {"20", "50", "100"} <= texts  # plain numbers on the axes


def test_publish_writes_the_figure_beside_the_page(record, tmp_path):
    rows = made_up(1.0)
    stored = {
        "schema": 1,
        "suite": "costs",
        "quick": False,
        "rounds": 3,
        "load": {"before": None, "after": None},
        "environment": {"threads": 1, "source": "0" * 64, "cpu": {"usable": 2, "model": "cpu"}},
        "result": record | {"rows": rows, "fits": costs.fits(rows)},
    }
    (tmp_path / "costs.json").write_text(json.dumps(stored))
    assert publish(tmp_path) == [tmp_path / "README.md", tmp_path / "costs.svg"]
    assert "draws the curves as `costs.svg`" in (tmp_path / "README.md").read_text()
    ET.parse(tmp_path / "costs.svg")


def test_the_work_of_a_process_that_fails_is_told():
    with pytest.raises(CheckFailedError, match="the process that measures nothing failed"):
        costs._child("nothing", [Size(8, 4, 4)], 1, 1)


@pytest.mark.slow  # measures
def test_more_images_take_more_memory():
    # Memory is no matter of chance as time is; three orders of magnitude leave no doubt.
    small, large = costs._child("engine", [Size(4, 4, 4), Size(4096, 4, 4)], 1, 1)
    if small["memory"] is None:
        pytest.skip("this system does not tell a process' peak memory")
    assert large["memory"] > small["memory"]
    assert large["memory"] > 4096 * 16 * 16  # a byte a pixel at the least


@pytest.mark.slow
@pytest.mark.finn
@pytest.mark.skipif(not finn_installed(), reason="finn-plus is not installed")
def test_finn_is_timed_and_its_own_process_weighed():
    (row,) = costs._child("compile", [Size(8, 4, 2)], 1, 1)
    assert row["seconds"][0] > 0
    assert row["memory"] > 50e6  # FINN's imports alone take more

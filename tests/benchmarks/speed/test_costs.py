import json
import math
import random
from dataclasses import asdict

import pytest

from benchmarks.speed import costs
from benchmarks.speed.cost_work import Size
from benchmarks.speed.power_law import fit
from benchmarks.speed.suite import Context
from divqat_brevitas.errors import CheckFailedError
from divqat_brevitas.models import build_model
from fpga_flow.compile.worker_process import finn_installed

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


@pytest.fixture(scope="module")
def record():
    return costs.measure(Context(rounds=1, quick=True))


@pytest.mark.slow  # measures
def test_a_quick_run_measures_every_stage_that_needs_no_finn(record):
    stages = {row["stage"] for row in record["rows"]}
    assert stages == {"train", "export", "lower", "engine", "attack"}
    assert record["not_run"] == {"FINN build": "quick", "RTL simulation": "quick"}
    for row in record["rows"]:
        assert row["axes"] == ["images"]
        assert len(row["seconds"]) == 1
        assert row["seconds"][0] > 0
        assert row["parameters"] == 1 * 4 * 9 + 8 + 4 * 8 * 9 + 16 + (8 * 16 + 1) * 10
    json.dumps(record, allow_nan=False)


@pytest.mark.slow  # measures
def test_a_whole_network_is_measured_once_a_size_and_shown_in_a_table_of_its_own(
    record,
):
    sizes = [Size(2, 0, 4, "resnet-8"), Size(4, 0, 4, "resnet-8")]
    rows = [
        {"stage": "engine", "axes": [], **asdict(size), **row}
        for size, row in zip(sizes, costs._child("engine", sizes, 0, 1), strict=True)
    ]
    assert [len(row["seconds"]) for row in rows] == [1, 1]
    network = build_model("resnet-8", (3, 32, 32), 10)
    assert rows[0]["parameters"] == sum(p.numel() for p in network.parameters())
    both = [*record["rows"], *rows]
    assert costs.fits(both) == record["fits"]  # they are no points of a curve
    page = costs.section(record | {"rows": both}).lines
    shown = [line for line in page if line.startswith("| resnet-8 | 78,")]
    assert [line.split(" | ")[2:4] for line in shown] == [["integer engine", n] for n in "24"]


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

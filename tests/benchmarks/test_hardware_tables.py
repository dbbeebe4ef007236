"""The committed hardware benchmark: a table made from its records, which hold what is said."""

from pathlib import Path

import pytest

from benchmarks.hardware.measure import _worst, headline_table, measure, merge, page, read
from divqat_brevitas.errors import InputError

FOLDER = Path(__file__).parents[2] / "benchmarks" / "hardware"
RECORDS = {record["run"]: record for record in read(FOLDER)}


def test_the_committed_page_is_that_of_the_committed_records(tmp_path: Path) -> None:
    assert len(RECORDS) >= 3
    records = list(RECORDS.values())
    assert (FOLDER / "README.md").read_text("utf-8") == page(records)
    merge(records[1:], tmp_path)
    made = merge(records[:1], tmp_path)
    assert made.read_text("utf-8") == page(records)
    assert read(tmp_path) == records
    assert all(record["model"] in "".join(headline_table(records)) for record in records)


@pytest.mark.parametrize("name", RECORDS)
def test_every_engine_agreed_and_cycles_were_predicted_within_2_per_cent(name: str) -> None:
    record = RECORDS[name]
    levels = {"rtl", "rtl with stalls", "chip"}
    if record["target"].startswith("ecp5"):
        levels.add("netlist")  # Gowin's cells have no simulation models here
    assert levels <= {row["b"] for row in record["equivalence"]}
    assert [row for row in record["equivalence"] if row["mismatches"]] == []
    assert record["cycles"]["worst"] == _worst(record["cycles"]["layers"], "predicted") <= 0.02


def test_errors_are_relative_to_the_simulation_and_skip_what_has_no_figure() -> None:
    layers = [
        {"measured": 100, "predicted": 98, "finn": None},
        {"measured": 200, "predicted": 202, "finn": 300},
    ]
    assert _worst(layers, "predicted") == pytest.approx(0.02)
    assert _worst(layers, "finn") == pytest.approx(0.5)
    assert _worst([], "finn") == 0


def test_a_run_without_a_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        measure(tmp_path, "qat")

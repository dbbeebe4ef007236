"""The committed hardware benchmark: a table made from its records, which hold what is said."""

from pathlib import Path

import pytest

from benchmarks.hardware.measure import _worst, measure, table, write
from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json

FOLDER = Path(__file__).parents[2] / "benchmarks" / "hardware"
RECORDS = {path.stem: read_json(path) for path in sorted(FOLDER.glob("*.json"))}


def test_the_committed_table_is_that_of_the_committed_records(tmp_path: Path) -> None:
    assert len(RECORDS) >= 3
    assert (FOLDER / "README.md").read_text() == table(list(RECORDS.values()))
    page = write(list(RECORDS.values()), tmp_path)
    assert page.read_text() == table(list(RECORDS.values()))
    assert {path.stem for path in tmp_path.glob("*.json")} == set(RECORDS)


@pytest.mark.parametrize("name", RECORDS)
def test_every_engine_agreed_and_cycles_were_predicted_within_2_per_cent(name: str) -> None:
    record = RECORDS[name]
    assert {"rtl", "rtl with stalls", "netlist", "chip"} <= {r["b"] for r in record["equivalence"]}
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

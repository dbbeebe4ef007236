"""Victims kept with the results: the very same network is attacked again, without training."""

import gzip
import shutil
from dataclasses import replace

import pytest

from benchmarks.extraction.cells import run_cell, write_cell
from benchmarks.extraction.collect import documents, keep_victims, read_cells, read_victims
from benchmarks.extraction.kept import keep, spec_of
from benchmarks.extraction.plan import plan
from benchmarks.extraction.tables import page
from benchmarks.extraction.victims import VictimStore
from divqat_brevitas.errors import CheckFailedError
from divqat_brevitas.files import read_json, write_json

CELL = next(c for c in plan("mini") if c.victim.variant == "qat")
SHORT = replace(CELL.victim, float_epochs=1, quant_epochs=1)
CELL = replace(CELL, victim=SHORT, theft=replace(CELL.theft, epochs=1, budget=60))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of results with one cell and its victims, and the cell."""
    work = tmp_path_factory.mktemp("work")
    results = tmp_path_factory.mktemp("results")
    cell = run_cell(CELL, VictimStore(work))
    write_cell(results, CELL, cell)
    assert keep_victims(results, work) == 2  # the victim, and the float one it was trained from
    return results, cell, work


@pytest.fixture
def results(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "results")
    return tmp_path / "results"


def test_a_kept_victim_is_attacked_without_training(trained, tmp_path):
    lines = []
    store = VictimStore(tmp_path, log=lines.append, kept=trained[0])
    again = run_cell(CELL, store)
    assert {**again, "seconds": 0} == {**trained[1], "seconds": 0}
    assert lines == []  # a victim in training says so
    assert not store.ready(SHORT.reference)
    record = read_json(store.folder(SHORT) / "victim.json")
    assert [row["epoch"] for row in record["history"]] == [1]
    assert 0 < record["history"][0]["val_accuracy"] < 1


def test_others_are_trained_from_the_kept_reference(trained, tmp_path):
    lines = []
    store = VictimStore(tmp_path, log=lines.append, kept=trained[0])
    store.get(replace(SHORT, variant="divqat-nasty", guard=1.0))
    assert [line.split()[1] for line in lines if "training" in line] == [
        replace(SHORT, variant="divqat-nasty").name + ":"
    ]
    assert store.ready(SHORT.reference)


def test_the_same_victim_is_kept_as_the_same_bytes(trained, results, tmp_path):
    files = sorted((results / "victims").iterdir())
    before = [file.read_bytes() for file in files]
    assert [file.suffix for file in files] == [".json", ".gz", ".json", ".gz"]
    assert keep_victims(results, trained[2]) == 2
    assert [file.read_bytes() for file in files] == before
    VictimStore(tmp_path / "restored", kept=results).get(SHORT)
    assert keep_victims(results, tmp_path / "restored") == 1
    assert [file.read_bytes() for file in files] == before


def test_a_victim_that_cells_were_measured_on_stays(trained, results):
    source = VictimStore(trained[2]).folder(SHORT)
    (home,) = [r for r in read_victims(results) if r["name"] == SHORT.name]
    other = results / "victims" / f"{SHORT.name}.json"
    write_json(other, home | {"sha256": {"model.onnx": "0" * 64}})
    assert not keep(results, source)
    assert read_json(other)["sha256"] == {"model.onnx": "0" * 64}


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"", lambda b: gzip.compress(b"x")])
def test_a_damaged_file_is_refused(results, tmp_path, damage):
    packed = results / "victims" / f"{SHORT.name}.onnx.gz"
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(CheckFailedError, match=r"onnx\.gz is not the victim"):
        VictimStore(tmp_path / "work", kept=results).get(SHORT)


def test_a_record_that_does_not_fit_the_network_is_refused(results, tmp_path):
    path = results / "victims" / f"{SHORT.name}.json"
    write_json(path, read_json(path) | {"test_accuracy": 0.123})
    with pytest.raises(CheckFailedError, match=r"12\.30% on record"):
        VictimStore(tmp_path / "work", kept=results).get(SHORT)


def test_other_settings_are_another_victim(trained, tmp_path):
    lines = []
    store = VictimStore(tmp_path, log=lines.append, kept=trained[0])
    store.get(replace(SHORT, quant_epochs=2))
    assert any("training" in line for line in lines)


def test_a_record_names_its_victim(trained):
    for record in read_victims(trained[0]):
        spec = spec_of(record)
        assert (spec.name, spec.key) == (record["name"], record["key"])


def test_the_page_tells_attacks_on_victims_that_are_not_kept(trained, results):
    found = documents(read_cells(results), read_victims(results))
    assert "whose weights were not kept" not in page(found)
    path = results / "victims" / f"{SHORT.name}.json"
    record = read_json(path)
    for other in (record | {"sha256": {"model.onnx": "0" * 64}}, record | {"file": None}):
        write_json(path, other)
        found = documents(read_cells(results), read_victims(results))
        assert "1 of 1 attack met an earlier training" in page(found)


def test_a_victims_accuracy_is_that_of_the_kept_training(trained, results):
    cell = trained[1]
    lost = cell["victim_record"] | {"sha256": {"model.onnx": "0" * 64}}
    earlier = {**cell, "seed": 9, "victim_accuracy": 0.5, "victim_record": lost}
    for cells in ([earlier, cell], [cell, earlier]):
        (row,) = documents(cells, read_victims(results))["digits"].victims
        assert row.accuracy == cell["victim_accuracy"] != 0.5

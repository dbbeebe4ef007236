"""Victims kept with the results: the very same network is attacked again, without training."""

import shutil
import zipfile
from dataclasses import replace

import pytest

from benchmarks.extraction.experiment import run_experiment
from benchmarks.extraction.plan import plan
from benchmarks.extraction.records import write_experiments
from benchmarks.extraction.results import documents, kept_victims
from benchmarks.extraction.victim_archive import (
    ARCHIVE,
    keep_victims,
    member,
    read_victims,
    write_victims,
)
from benchmarks.extraction.victims import VictimStore
from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.files import read_json

EXPERIMENT = next(c for c in plan("mini") if c.victim.variant == "qat")
SHORT = replace(EXPERIMENT.victim, float_epochs=1, quant_epochs=1)
EXPERIMENT = replace(
    EXPERIMENT, victim=SHORT, attack=replace(EXPERIMENT.attack, epochs=1, budget=60)
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of results with one experiment and its victims, and the experiment."""
    work = tmp_path_factory.mktemp("work")
    results = tmp_path_factory.mktemp("results")
    experiment = run_experiment(EXPERIMENT, VictimStore(work))
    write_experiments(results, [experiment])
    assert keep_victims(results, work, [experiment]) == 2
    return results, experiment, work


@pytest.fixture
def results(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "results")
    return tmp_path / "results"


@pytest.mark.slow  # trains and attacks
def test_a_kept_victim_is_attacked_without_training(trained, tmp_path):
    lines = []
    store = VictimStore(tmp_path, log=lines.append, kept=trained[0])
    again = run_experiment(EXPERIMENT, store)
    assert again.model_copy(update={"seconds": {}}) == trained[1].model_copy(update={"seconds": {}})
    assert lines == []  # a victim in training says so
    assert not store.ready(SHORT.reference)
    record = read_json(store.folder(SHORT) / "victim.json")
    assert [row["epoch"] for row in record["history"]] == [1]
    assert 0 < record["history"][0]["val_accuracy"] < 1


@pytest.mark.slow  # trains and attacks
def test_others_are_trained_from_a_float_network_that_is_trained_again(trained, tmp_path):
    lines = []
    store = VictimStore(tmp_path, log=lines.append, kept=trained[0])
    store.get(replace(SHORT, variant="divqat-nasty", guard=1.0))
    assert [line.split()[1] for line in lines if "training" in line] == [
        f"{spec.name}:" for spec in (SHORT.reference, replace(SHORT, variant="divqat-nasty"))
    ]
    kept = {record["name"]: record for record in read_victims(trained[0])}
    again = read_json(store.folder(SHORT.reference) / "victim.json")
    assert again["sha256"] == kept[SHORT.reference.name]["sha256"]  # one machine, one result


def test_the_same_victim_is_kept_as_the_same_bytes(trained, results, tmp_path):
    files = sorted(path for path in results.rglob("*") if path.is_file())
    before = [file.read_bytes() for file in files]
    assert [file.suffix for file in files] == [".gz", ".gz", ".zip"]
    assert keep_victims(results, trained[2], [trained[1]]) == 2
    assert [file.read_bytes() for file in files] == before
    VictimStore(tmp_path / "restored", kept=results).get(SHORT)
    assert keep_victims(results, tmp_path / "restored", [trained[1]]) == 1
    assert [file.read_bytes() for file in files] == before


def test_a_victim_that_experiments_were_measured_on_stays(trained, results):
    changed = [
        record | {"sha256": {"model.onnx": "0" * 64}} if record["name"] == SHORT.name else record
        for record in read_victims(results)
    ]
    write_victims(results, changed)
    (other,) = (record for record in changed if record["name"] == SHORT.name)
    with zipfile.ZipFile(results / ARCHIVE, "a") as archive:
        archive.writestr(member(other), b"other weights")
    assert keep_victims(results, trained[2], [trained[1]]) == 1  # the float network's record
    assert read_victims(results) == changed


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b""])
def test_a_damaged_archive_is_refused(results, tmp_path, damage):
    archive = results / ARCHIVE
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(InputError, match=r"victims\.zip is damaged"):
        VictimStore(tmp_path / "work", kept=results).get(SHORT)


def test_another_network_under_a_victims_name_is_refused(results, tmp_path):
    with zipfile.ZipFile(results / ARCHIVE) as archive:
        (name,) = archive.namelist()
    with zipfile.ZipFile(results / ARCHIVE, "w") as archive:
        archive.writestr(name, b"another network")
    with pytest.raises(CheckFailedError, match=r"is not what the victim's record describes"):
        VictimStore(tmp_path / "work", kept=results).get(SHORT)


def test_a_record_that_does_not_fit_the_network_is_refused(results, tmp_path):
    write_victims(results, [r | {"test_accuracy": 0.123} for r in read_victims(results)])
    with pytest.raises(CheckFailedError, match=r"12\.30% on record"):
        VictimStore(tmp_path / "work", kept=results).get(SHORT)


def test_a_victims_accuracy_is_that_of_the_kept_training(trained, results):
    experiment = trained[1]
    lost = experiment.victim_record.model_copy(update={"sha256": {"model.onnx": "0" * 64}})
    earlier = experiment.model_copy(
        update={"seed": 9, "victim_accuracy": 0.5, "victim_record": lost}
    )
    for experiments in ([earlier, experiment], [experiment, earlier]):
        (row,) = documents(experiments, kept_victims(results))["digits"].victims
        assert row.accuracy == experiment.victim_accuracy != 0.5

"""Resuming, stale keys, locks, deadlines and kills: nothing lost, nothing done twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from fixture_experiments import of_spec

from benchmarks.extraction import repeat as repeating
from benchmarks.extraction import runner
from benchmarks.extraction.experiment import run_experiment
from benchmarks.extraction.plan import plan
from benchmarks.extraction.records import write_experiments
from benchmarks.extraction.repeat import repeat
from benchmarks.extraction.results import documents, kept_victims
from benchmarks.extraction.runner import Place, run
from benchmarks.extraction.victim_archive import (
    ARCHIVE,
    keep_victims,
    member,
    read_victims,
    write_victims,
)
from benchmarks.extraction.victims import OutOfTimeError, VictimStore
from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.files import read_json
from fpga_flow.cli import main
from fpga_flow.pipeline.tasks import LockedError, locked

EXPERIMENTS = plan("mini")[:4]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "out", tmp_path / "work")


@pytest.fixture
def ran(monkeypatch):
    """Experiments that run at once; gives the names of those that did."""
    names: list[str] = []

    def run_experiment(spec, store, clones=None):
        names.append(spec.name)
        return of_spec(spec)

    monkeypatch.setattr(runner, "run_experiment", run_experiment)
    monkeypatch.setattr(repeating, "run_experiment", run_experiment)
    return names


def quiet(line: str) -> None:
    pass


def test_another_process_gets_the_same_experiment(place, monkeypatch):
    received = []

    def run_experiment(spec, store, clones=None):
        received.append(spec)
        return of_spec(spec)

    monkeypatch.setattr(runner, "run_experiment", run_experiment)
    one_each = {experiment.victim.changes: experiment for experiment in plan("compact")}
    for sent in one_each.values():
        runner.work(runner.task_of(sent, place))
        assert received.pop() == sent


def test_in_order_and_never_twice(place, ran):
    lines: list[str] = []
    assert run(EXPERIMENTS[:2], place, log=lines.append).done == [c.name for c in EXPERIMENTS[:2]]
    assert lines[0].startswith("[1/2] ")
    assert "clone 50.00% of victim 90.00%" in lines[0]
    assert lines[1].endswith(", 0 s to go")
    summary = run(EXPERIMENTS, place, log=quiet)
    assert (summary.there, summary.done) == (2, [c.name for c in EXPERIMENTS[2:]])
    assert ran == [c.name for c in EXPERIMENTS]


def test_a_stale_experiment_is_run_again(place, ran):
    run(EXPERIMENTS[:2], place, log=quiet)
    stale = of_spec(EXPERIMENTS[1]).model_copy(update={"key": "of other settings"})
    place.experiments.put(EXPERIMENTS[1], stale)
    assert place.experiments.get(EXPERIMENTS[1]) is None
    assert run(EXPERIMENTS[:2], place, log=quiet).done == [EXPERIMENTS[1].name]
    record = place.experiments.get(EXPERIMENTS[1])
    assert record is not None
    assert record.key == EXPERIMENTS[1].key


def test_an_experiment_that_another_runner_has_is_left_to_it(place, ran):
    with locked(place.work / "locks" / f"experiment-{EXPERIMENTS[0].key[:16]}", wait=False):
        summary = run(EXPERIMENTS[:2], place, log=quiet)
    assert (summary.left, summary.done) == ([EXPERIMENTS[0].name], [EXPERIMENTS[1].name])
    assert run(EXPERIMENTS[:2], place, log=quiet).done == [EXPERIMENTS[0].name]


def test_a_lock_is_held_once(tmp_path):
    with (
        locked(tmp_path / "a", wait=False),
        locked(tmp_path / "b", wait=False),
        pytest.raises(LockedError),
        locked(tmp_path / "a", wait=False),
    ):
        pass
    with locked(tmp_path / "a", wait=False):
        pass


def test_nothing_begins_after_the_deadline(place, ran):
    over = Place(place.results, place.work, deadline=time.time() - 1)
    summary = run(EXPERIMENTS, over, log=quiet)
    assert (summary.done, len(summary.left), ran) == ([], len(EXPERIMENTS), [])


def test_clones_are_remembered_between_experiments_but_not_for_a_repeat(place, ran, monkeypatch):
    fine, given = runner.run_experiment, []

    def run_experiment(spec, store, clones=None):
        given.append(clones)
        return fine(spec, store)

    for module in (runner, repeating):
        monkeypatch.setattr(module, "run_experiment", run_experiment)
    run(EXPERIMENTS[:1], place, log=quiet)
    repeat(EXPERIMENTS[0].name, EXPERIMENTS, place)
    assert given == [place.work / "clones", None]


def test_training_stops_in_time_and_is_no_failure(place, monkeypatch):
    def run_experiment(spec, store, clones=None):
        raise OutOfTimeError("stopped")

    monkeypatch.setattr(runner, "run_experiment", run_experiment)
    summary = run(EXPERIMENTS[:1], place, log=quiet)
    assert (summary.left, summary.failed) == ([EXPERIMENTS[0].name], {})


def test_one_failure_costs_no_other_experiment(place, ran, monkeypatch):
    fine = runner.run_experiment

    def run_experiment(spec, store, clones=None):
        if spec == EXPERIMENTS[0]:
            raise InputError("the pool is gone.")
        return fine(spec, store)

    monkeypatch.setattr(runner, "run_experiment", run_experiment)
    summary = run(EXPERIMENTS[:2], place, log=quiet)
    assert summary.failed == {EXPERIMENTS[0].name: "the pool is gone."}
    assert summary.done == [EXPERIMENTS[1].name]
    assert place.experiments.get(EXPERIMENTS[0]) is None


_KILLED = """
import sys, time
from pathlib import Path
sys.path.append(sys.argv[3])
from fixture_experiments import of_spec
from benchmarks.extraction import runner
from benchmarks.extraction.plan import plan
def run_experiment(spec, store, clones=None):
    if spec == plan("mini")[1]:
        print("hanging", flush=True)
        time.sleep(600)
    return of_spec(spec)
runner.run_experiment = run_experiment
runner.run(plan("mini")[:2], runner.Place(Path(sys.argv[1]), Path(sys.argv[2])))
"""


@pytest.mark.slow  # trains and attacks
def test_killed_at_any_moment_nothing_is_lost(place, ran):
    command = [sys.executable, "-c", _KILLED, str(place.results), str(place.work)]
    command.append(str(Path(__file__).parent))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "hanging" not in process.stdout.readline():
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    assert len(list((place.work / "experiments").iterdir())) == 1
    summary = run(EXPERIMENTS[:2], place, log=quiet)
    assert (summary.there, summary.done) == (1, [EXPERIMENTS[1].name])


def committed(place, values):
    experiments = plan("compact")
    first = experiments[0]
    same = [c for c in experiments if c.configuration == first.configuration]
    for experiment, value in zip(same, values, strict=False):
        place.experiments.put(experiment, of_spec(experiment, value))
    place.experiments.pack(experiments)
    return first.name, experiments


@pytest.mark.parametrize(
    ("values", "inside"), [((0.49, 0.51, 0.5), True), ((0.8, 0.81, 0.82), False), ((0.8,), True)]
)
def test_an_experiment_again_beside_its_committed_seeds(place, ran, values, inside):
    name, experiments = committed(place, values)
    found = repeat(name, experiments, place)
    assert (found.committed, found.new, found.inside) == (values[0], 0.5, inside)
    assert (found.interval is None) == (len(values) == 1)
    kept = place.experiments.get(experiments[0])
    assert kept is not None
    assert kept.clone_accuracy == values[0]


def test_the_command_lists_runs_and_repeats(place, ran, capsys, monkeypatch):
    options = ["--out", str(place.results), "--work", str(place.work)]

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["bench", "extraction", *options, *arguments])
        return stopped.value.code, capsys.readouterr().out

    code, out = call("--scale", "mini", "--only", EXPERIMENTS[0].name, "--json")
    assert (code, json.loads(out)["done"]) == (0, [EXPERIMENTS[0].name])
    code, out = call("--scale", "mini", "--list", "--json")
    assert [row["name"] for row in json.loads(out) if row["done"]] == [EXPERIMENTS[0].name]
    assert call("--scale", "mini", "--experiment", EXPERIMENTS[0].name)[0] == 0
    assert call("--scale", "mini", "--experiment", EXPERIMENTS[1].name)[0] == 2
    name, _ = committed(place, (0.8, 0.81, 0.82))
    code, out = call("--experiment", name)
    assert code == 1
    assert "OUTSIDE" in out
    assert Path(place.results).is_dir()


# Victims kept with the results: the very same network is attacked again, without training.
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

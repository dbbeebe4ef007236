"""Resuming, stale keys, locks, deadlines and kills: nothing lost, nothing done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.extraction import again, runner
from benchmarks.extraction.again import prediction_interval, repeat
from benchmarks.extraction.cells import cell_file, read_cell
from benchmarks.extraction.plan import plan
from benchmarks.extraction.runner import Place, run
from benchmarks.extraction.victims import OutOfTimeError
from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json, write_json
from fpga_flow.cli import main
from fpga_flow.pipeline.locks import LockedError, locked

CELLS = plan("mini")[:4]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "out", tmp_path / "work")


@pytest.fixture
def ran(monkeypatch):
    """Cells that run at once; gives the names of those that did."""
    names: list[str] = []

    def run_cell(spec, store, clones=None):
        names.append(spec.name)
        return {"key": spec.key, "clone_accuracy": 0.5, "victim_accuracy": 0.9}

    monkeypatch.setattr(runner, "run_cell", run_cell)
    monkeypatch.setattr(again, "run_cell", run_cell)
    return names


def quiet(line: str) -> None:
    pass


def test_in_order_and_never_twice(place, ran):
    lines: list[str] = []
    assert run(CELLS[:2], place, log=lines.append).done == [c.name for c in CELLS[:2]]
    assert lines[0].startswith("[1/2] ")
    assert "clone 50.00% of victim 90.00%" in lines[0]
    assert lines[1].endswith("0 min to go")
    summary = run(CELLS, place, log=quiet)
    assert (summary.there, summary.done) == (2, [c.name for c in CELLS[2:]])
    assert ran == [c.name for c in CELLS]


def test_a_stale_cell_is_run_again(place, ran):
    run(CELLS[:2], place, log=quiet)
    path = cell_file(place.results, CELLS[1])
    write_json(path, read_json(path) | {"key": "of other settings"})
    assert read_cell(place.results, CELLS[1]) is None
    assert run(CELLS[:2], place, log=quiet).done == [CELLS[1].name]
    assert read_json(path)["key"] == CELLS[1].key


def test_a_cell_that_another_runner_has_is_left_to_it(place, ran):
    with locked(place.work / "locks" / f"cell-{CELLS[0].key[:16]}", wait=False):
        summary = run(CELLS[:2], place, log=quiet)
    assert (summary.left, summary.done) == ([CELLS[0].name], [CELLS[1].name])
    assert run(CELLS[:2], place, log=quiet).done == [CELLS[0].name]


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
    summary = run(CELLS, over, log=quiet)
    assert (summary.done, len(summary.left), ran) == ([], len(CELLS), [])


def test_clones_are_remembered_between_cells_but_not_for_a_repeat(place, ran, monkeypatch):
    fine, given = runner.run_cell, []

    def run_cell(spec, store, clones=None):
        given.append(clones)
        return fine(spec, store)

    for module in (runner, again):
        monkeypatch.setattr(module, "run_cell", run_cell)
    run(CELLS[:1], place, log=quiet)
    again.repeat(CELLS[0].name, CELLS, place)
    assert given == [place.work / "clones", None]


def test_training_stops_in_time_and_is_no_failure(place, monkeypatch):
    def run_cell(spec, store, clones=None):
        raise OutOfTimeError("stopped")

    monkeypatch.setattr(runner, "run_cell", run_cell)
    summary = run(CELLS[:1], place, log=quiet)
    assert (summary.left, summary.failed) == ([CELLS[0].name], {})


def test_one_failure_costs_no_other_cell(place, ran, monkeypatch):
    fine = runner.run_cell

    def run_cell(spec, store, clones=None):
        if spec == CELLS[0]:
            raise InputError("the pool is gone.")
        return fine(spec, store)

    monkeypatch.setattr(runner, "run_cell", run_cell)
    summary = run(CELLS[:2], place, log=quiet)
    assert summary.failed == {CELLS[0].name: "the pool is gone."}
    assert summary.done == [CELLS[1].name]
    assert not cell_file(place.results, CELLS[0]).exists()


_KILLED = """
import sys, time
from pathlib import Path
from benchmarks.extraction import runner
from benchmarks.extraction.plan import plan
def run_cell(spec, store, clones=None):
    if spec == plan("mini")[1]:
        print("hanging", flush=True)
        time.sleep(600)
    return {"key": spec.key, "clone_accuracy": 0.5, "victim_accuracy": 0.9}
runner.run_cell = run_cell
runner.run(plan("mini")[:2], runner.Place(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def test_killed_at_any_moment_nothing_is_lost(place, ran):
    command = [sys.executable, "-c", _KILLED, str(place.results), str(place.work)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "hanging" not in process.stdout.readline():
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    assert [p.name for p in (place.results / "cells").iterdir()] == [f"{CELLS[0].name}.json"]
    summary = run(CELLS[:2], place, log=quiet)
    assert (summary.there, summary.done) == (1, [CELLS[1].name])


def committed(place, values):
    cells = plan("compact")
    first = cells[0]
    same = [c for c in cells if c.configuration == first.configuration]
    for cell, value in zip(same, values, strict=False):
        write_json(
            cell_file(place.results, cell), {"key": cell.key, "clone_accuracy": value, "name": ""}
        )
    return first.name, cells


@pytest.mark.parametrize(
    ("values", "inside"),
    [((0.49, 0.51, 0.5), True), ((0.8, 0.81, 0.82), False), ((0.8,), True)],
)
def test_a_cell_again_beside_its_committed_seeds(place, ran, values, inside):
    name, cells = committed(place, values)
    found = repeat(name, cells, place)
    assert (found.committed, found.new, found.inside) == (values[0], 0.5, inside)
    assert (found.interval is None) == (len(values) == 1)
    assert read_json(cell_file(place.results, cells[0]))["clone_accuracy"] == values[0]


def test_prediction_interval_by_hand():
    low, high = prediction_interval([0.4, 0.6])
    # s = 0.1414, t(1) = 12.706, sqrt(1 + 1/2) = 1.2247
    assert (low + high) / 2 == pytest.approx(0.5)
    assert high - low == pytest.approx(2 * 12.706 * 0.141421 * 1.224745, rel=1e-5)


def test_the_command_lists_runs_and_repeats(place, ran, capsys, monkeypatch):
    options = ["--out", str(place.results), "--work", str(place.work)]

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["bench", "extraction", *options, *arguments])
        return stopped.value.code, capsys.readouterr().out

    code, out = call("--scale", "mini", "--only", CELLS[0].name, "--json")
    assert (code, json.loads(out)["done"]) == (0, [CELLS[0].name])
    code, out = call("--scale", "mini", "--list", "--json")
    assert [row["name"] for row in json.loads(out) if row["done"]] == [CELLS[0].name]
    assert call("--scale", "mini", "--cell", CELLS[0].name)[0] == 0
    assert call("--scale", "mini", "--cell", CELLS[1].name)[0] == 2
    name, _ = committed(place, (0.8, 0.81, 0.82))
    code, out = call("--cell", name)
    assert code == 1
    assert "OUTSIDE" in out
    assert Path(place.results).is_dir()

import csv
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, Future

import pytest

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json
from fpga_flow.cli import commands as cli
from fpga_flow.errors import RunLockedError
from fpga_flow.pipeline import sweep_run as runner
from fpga_flow.pipeline import task_process
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.pipeline.sweep_grid import read_sweep
from fpga_flow.pipeline.sweep_run import SWEEP_LOCK, TASK_LOCK, events, folder_of, task_of
from fpga_flow.pipeline.task_process import launch
from fpga_flow.pipeline.tasks import Outcome, Summary, locked, run_tasks

# The least that is a run: one epoch of a float network on 8x8 digits.
TINY = """
preset = "smoke"
skip = ["export", "compile", "simulate", "attack", "report"]
[base]
train.variants = ["float"]
[grid]
run.seeds = [{seeds}]
"""


@pytest.fixture
def tiny(tmp_path):
    """A sweep file of so many tasks that differ in their seed."""

    def write(tasks):
        file = tmp_path / "sweep.toml"
        file.write_text(TINY.format(seeds=", ".join(map(str, range(tasks)))))
        return file

    return write


# A suite that a shell started in the background inherits an ignored SIGINT.
_MAIN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from fpga_flow.cli import main; main()"
)
DIVQAT = [sys.executable, "-c", _MAIN]


def words(out, task):
    return [event["event"] for event in events(folder_of(out, task))]


def until(condition, seconds=300):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def divqat(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return caught.value.code or 0, out, err


def begin(sweep, out):
    return subprocess.Popen(
        [*DIVQAT, "sweep", str(sweep), "--out", str(out), "--workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow  # runs in processes of its own
def test_tasks_run_once_a_failed_one_is_reported_and_others_go_on(tiny, tmp_path, capsys):
    sweep, out = tiny(2), tmp_path / "out"
    good, bad = read_sweep(sweep)
    stone = folder_of(out, bad) / "train"  # a file where the stage needs its folder
    stone.parent.mkdir(parents=True)
    stone.write_text("")

    code, text, err = divqat(capsys, "sweep", sweep, "--out", out, "--json")
    document = json.loads(text)
    assert code == document["exit_code"] == 1
    assert document["done"] == [good.name]
    assert list(document["failed"]) == [bad.name]
    assert "train" in document["failed"][bad.name]
    assert f"{bad.name}: " in err
    assert [row["state"] for row in document["tasks"]] == ["done", "failed"]
    accuracy = document["tasks"][0]["figures"]["accuracy.float"]
    victims = read_json(folder_of(out, good) / "train" / "victims.json")
    assert accuracy == victims[0]["accuracy"]
    assert RunDirectory(folder_of(out, good)).config() == good.config
    table = list(csv.DictReader((out / "summary.csv").open()))
    assert [row["run.seeds"] for row in table] == ["0", "1"]
    assert float(table[0]["accuracy.float"]) == accuracy

    stone.unlink()
    code, text, _ = divqat(capsys, "sweep", sweep, "--out", out)
    assert code == 0
    assert "1 tasks run, 1 were there, 0 left, 0 failed" in text
    assert words(out, good) == ["start", "done"]
    assert words(out, bad) == ["start", "failed", "start", "done"]

    listed = divqat(capsys, "sweep", sweep, "--out", out, "--list", "--json")
    assert [row["state"] for row in json.loads(listed[1])] == ["done", "done"]


@pytest.mark.slow  # runs in processes of its own
def test_ctrl_c_ends_the_cells_process_and_the_same_command_continues(tiny, tmp_path):
    sweep, out = tiny(2), tmp_path / "out"
    first, second = read_sweep(sweep)
    process = begin(sweep, out)
    start = until(lambda: events(folder_of(out, first)))[0]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "run the same command again" in err
    with pytest.raises(ProcessLookupError):
        os.kill(start["process"], 0)
    assert words(out, first) == ["start", "interrupted"]
    assert words(out, second) == []

    again = begin(sweep, out)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert words(out, first) == ["start", "interrupted", "start", "done"]
    assert words(out, second) == ["start", "done"]


@pytest.mark.slow  # runs in processes of its own
def test_a_killed_process_is_a_failed_task_and_a_killed_sweep_leaves_none_behind(tiny, tmp_path):
    sweep, out = tiny(2), tmp_path / "out"
    first, second = read_sweep(sweep)
    process = begin(sweep, out)
    start = until(lambda: events(folder_of(out, first)))[0]
    os.kill(start["process"], signal.SIGKILL)
    orphan = until(lambda: events(folder_of(out, second)))[0]
    process.kill()
    _, err = process.communicate(timeout=300)
    assert "its process was killed" in err
    # The second task's process sees that its parent is gone, and lets go of the task.
    until(lambda: words(out, second)[1:])
    with locked(folder_of(out, second) / TASK_LOCK, wait=True):
        assert words(out, second) in (["start", "interrupted"], ["start", "done"])
    until(lambda: not os.path.exists(f"/proc/{orphan['process']}"))  # noqa: PTH110


def test_every_task_has_its_share_of_the_cores(tiny):
    tasks = read_sweep(tiny(5))
    assert runner.share(tasks, cores=8) == (5, 1)
    assert runner.share(tasks, workers=2, cores=8) == (2, 4)
    threads = tasks[0].config.run.model_copy(update={"threads": 4})
    wide = [type(tasks[0])("wide", {}, tasks[0].config.model_copy(update={"run": threads}), (), "")]
    assert runner.share(wide * 5, cores=8) == (2, 4)
    with pytest.raises(InputError, match="--workers 2 at most"):
        runner.share(wide, workers=3, cores=8)
    with pytest.raises(InputError, match=r"run.threads = 4 is more than this machine's 2 cores"):
        runner.share(wide, cores=2)


def test_the_share_is_in_the_environment_when_the_process_starts(tiny, tmp_path, monkeypatch):
    (task,) = read_sweep(tiny(1))
    seen = {}

    class Process:
        returncode = 0

        def __init__(self, command, env, **kwargs):
            seen.update(env)

        def communicate(self, given, timeout):
            return '{"state": "done"}', None

    monkeypatch.setattr(subprocess, "Popen", Process)
    (tmp_path / SWEEP_LOCK).touch()
    assert launch(task_of(task, tmp_path), threads=3) == Outcome("done")
    assert seen["OMP_NUM_THREADS"] == seen["MKL_NUM_THREADS"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    launch(task_of(task, tmp_path))
    assert seen["OMP_NUM_THREADS"] == "1"


def test_a_folder_that_a_worker_does_not_see_is_said(tiny, tmp_path):
    (task,) = read_sweep(tiny(1))
    outcome = launch(task_of(task, tmp_path / "elsewhere"))
    assert outcome.state == "failed"
    assert "file system that all workers share" in outcome.detail
    assert not (tmp_path / "elsewhere").exists()


def test_a_process_that_cannot_be_started_is_a_failed_cell(tiny, tmp_path):
    (task,) = read_sweep(tiny(1))
    (tmp_path / SWEEP_LOCK).touch()
    (tmp_path / "tasks").write_text("")  # a file where the tasks' folder has to be
    outcome = launch(task_of(task, tmp_path))
    assert outcome.state == "failed"
    assert str(tmp_path / "tasks") in outcome.detail


def test_a_task_the_cluster_gives_up_fails_and_a_cancelled_one_is_left(tiny, tmp_path):
    tasks = read_sweep(tiny(3))

    def submit(task):
        future = Future()
        match task.name[-1]:
            case "0":
                future.set_exception(RuntimeError("worker died 4 times"))
            case "1":
                future.set_exception(CancelledError())
            case "2":
                future.set_result(Outcome("missing-tool", "compile did not run: no FINN"))
        return future

    summary, lines = Summary(), []
    run_tasks([task_of(task, tmp_path) for task in tasks], submit, summary, log=lines.append)
    names = [task.name for task in tasks]
    assert "worker died 4 times" in summary.failed[names[0]]
    assert summary.left == [names[1]]
    assert summary.missing == {names[2]: "compile did not run: no FINN"}
    assert len(lines) == 2


def test_two_sweeps_in_one_folder_are_refused(tiny, tmp_path):
    tasks = read_sweep(tiny(1))
    with (
        locked(tmp_path / SWEEP_LOCK, wait=False),
        pytest.raises(RunLockedError, match="another divqat sweep works in"),
    ):
        runner.run_sweep(tasks, tmp_path)


def test_a_cluster_that_does_not_answer_or_makes_no_sense(tiny, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="the extra 'sweep' is not installed")
    monkeypatch.setattr(task_process, "_CONNECT_SECONDS", 1)
    tasks = read_sweep(tiny(1))
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(InputError, match=f"no Dask scheduler answers at {address}"):
            runner.run_sweep(tasks, tmp_path, cluster=address)


def test_without_dask_the_command_says_what_to_install(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    sweep = tiny(1)
    with pytest.raises(SystemExit) as caught:
        cli.main(["sweep", str(sweep), "--out", str(tmp_path / "out"), "--cluster", "tcp://x:1"])
    assert caught.value.code == 3
    assert "pip install '.[sweep]'" in capsys.readouterr().err

"""The same tasks on two Dask workers, one of which is killed in the middle."""

import os
import signal
import sys
import time

import pytest

distributed = pytest.importorskip("distributed", reason="the extra 'sweep' is not installed")

from fpga_flow.cli import commands as cli  # noqa: E402
from fpga_flow.pipeline.sweep import run as runner  # noqa: E402
from fpga_flow.pipeline.sweep.grid import read_sweep  # noqa: E402
from fpga_flow.pipeline.sweep.run import events, folder_of  # noqa: E402
from fpga_flow.pipeline.tasks import Summary  # noqa: E402


@pytest.fixture
def cluster(tmp_path):
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        local_directory=str(tmp_path / "dask"),
        silence_logs="CRITICAL",
    ) as cluster:
        yield cluster


@pytest.mark.slow  # runs in processes of its own
def test_a_worker_killed_in_the_middle_loses_nothing_and_repeats_nothing(
    tiny, tmp_path, cluster, monkeypatch
):
    tasks, out = read_sweep(tiny(4)), tmp_path / "out"
    killed = {}

    def kill(line):
        """After the first finished task: the worker that is in the middle of another one."""
        if killed or not line.startswith("[1/"):
            return
        end = time.monotonic() + 300
        while time.monotonic() < end:
            for task in tasks:
                log = events(folder_of(out, task))
                if [event["event"] for event in log] == ["start"]:
                    os.kill(log[0]["parent"], signal.SIGKILL)
                    killed.update(task=task.name, worker=log[0]["parent"], at=_state(tasks, out))
                    return
            time.sleep(0.01)

    workers = {worker.pid for worker in cluster.workers.values()}
    summary = runner.run(tasks, out, cluster=cluster.scheduler_address, log=kill)

    assert killed["worker"] in workers
    assert sorted(summary.done) == sorted(task.name for task in tasks)
    assert summary == Summary(done=summary.done)
    logs = _state(tasks, out)
    assert all(log.count("done") == 1 and log[-1] == "done" for log in logs.values())
    # Only what the killed worker was in the middle of was begun again ...
    assert {name for name, log in logs.items() if log.count("start") > 1} == {killed["task"]}
    # ... and what was finished at that moment was not touched.
    finished = [name for name, log in killed["at"].items() if "done" in log]
    assert finished
    assert all(logs[name] == ["start", "done"] for name in finished)

    # The same command afterwards, on the same cluster or here, has nothing to do.
    with pytest.raises(SystemExit) as caught:
        cli.main(["sweep", str(tmp_path / "sweep.toml"), "--out", str(out)])
    assert not caught.value.code
    assert _state(tasks, out) == logs


def _state(tasks, out):
    return {task.name: [event["event"] for event in events(folder_of(out, task))] for task in tasks}


def test_without_dask_the_command_says_what_to_install(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    sweep = tiny(1)
    with pytest.raises(SystemExit) as caught:
        cli.main(["sweep", str(sweep), "--out", str(tmp_path / "out"), "--cluster", "tcp://x:1"])
    assert caught.value.code == 3
    assert "pip install '.[sweep]'" in capsys.readouterr().err

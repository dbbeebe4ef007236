"""What a machine does to a run: full disks, read-only folders, odd names, clocks that jump."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from kill9 import ESTIMATE, SETTINGS, campaign

from divqat_brevitas.data import cache
from divqat_brevitas.errors import InputError
from divqat_brevitas.files import replacing, write_json, write_text
from divqat_brevitas.training.checkpoint import load_tensors, save_tensors
from fpga_flow.errors import RunLockedError, explain
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.rundir import RunDirectory, StageRecord

COMMAND = [sys.executable, "-c", "from fpga_flow.cli import main; main()"]
IN_CHILD = """
import resource, signal, sys
from pathlib import Path
import torch
from divqat_brevitas.files import write_text
from divqat_brevitas.training.checkpoint import save_tensors
from fpga_flow.errors import explain
folder, kind = Path(sys.argv[1]), sys.argv[2]
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    if kind == "text":
        write_text(folder / "a", "new" * 100_000)
    else:
        save_tensors(folder / "a", {"w": torch.ones(100_000)}, {})
except Exception as e:
    print(*explain(e), sep="|")
"""


@pytest.mark.slow  # starts processes
@pytest.mark.parametrize("kind", ["text", "weights"])
def test_a_file_that_no_longer_fits_leaves_the_old_one(tmp_path: Path, kind: str) -> None:
    write_text(tmp_path / "a", "old")
    ended = subprocess.run(
        [sys.executable, "-c", IN_CHILD, str(tmp_path), kind], capture_output=True, text=True
    )
    message, code = ended.stdout.strip().rsplit("|", 1)
    assert code == "2"
    assert re.search("File too large|disk is full", message)
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208


def small_disk(folder: Path) -> bool:
    """Mount 64 KiB of memory at ``folder``, in a name space of this test's own, if allowed."""
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or not small_disk(disk):
        pytest.skip("no right to mount a small disk here")
    try:
        run = RunDirectory(disk)
        with run.lock():
            run.write_record("train", StageRecord("done", {}))
        before = run.manifest_file.read_bytes()
        with pytest.raises(InputError, match=r"No space left on device.*Free space"):
            write_text(disk / "train" / "big", "x" * 100_000)
        (disk / "filler").write_bytes(bytes(max(0, _free(disk))))
        with pytest.raises(InputError, match=r"cannot write .*manifest"):
            run.write_record("train", StageRecord("failed", {"a" * 5_000: "b"}))
        assert run.manifest_file.read_bytes() == before
        with pytest.raises(Exception, match=r".") as caught:
            save_tensors(disk / "w", {"w": torch.ones(50_000)}, {})
        assert explain(caught.value)[1] == 2
        assert not [p for p in disk.rglob(".*") if p.name != ".lock"]
        with run.lock():  # a full disk does not keep the owner out
            pass
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def test_a_read_only_folder(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / "a", "old")
        folder.chmod(0o555)
        root = os.geteuid() == 0
        if root:  # may write anywhere: be somebody else
            os.seteuid(65534)
        try:
            with pytest.raises(InputError, match=r"cannot write .*make the folder writable"):
                write_text(folder / "a", "new")
            with pytest.raises(InputError, match="cannot write"):
                write_json(folder / "new" / "a", {})
            with pytest.raises(InputError, match="cannot write below"), cache.staging(folder, "x"):
                pass
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)
        assert (folder / "a").read_text() == "old"


def test_an_error_in_the_block_keeps_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")

    def interrupted() -> None:
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


ODD = ["ü n i c o d e", "日本語", "-dash", "a\nb", "'quote\"", "x" * 200, "%s{}", "emoji 🦆"]


@pytest.mark.parametrize("name", ODD)
def test_unicode_and_odd_names(tmp_path: Path, name: str) -> None:
    run = RunDirectory(tmp_path / name)
    config = resolve(preset="smoke")
    with run.lock():
        run.save_config(config)
        write_text(run.path / "train" / f"{name[:100]}.txt", "1")
        made = run.hashes({"train"})
        run.write_record("train", StageRecord("done", {}, made))
    again = RunDirectory.existing(tmp_path / name)
    assert again.config() == config
    assert again.damage(made) == ""
    save_tensors(run.path / "w.safetensors", {"w": torch.ones(2)}, {"name": name})
    assert load_tensors(run.path / "w.safetensors")[1] == {"name": name}


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--preset", "smoke", "--out", "x" * 10_000],
        ["run", "/".join(["x" * 200] * 60)],
        ["train", "y" * 10_000],
        ["check", "z" * 10_000],
        ["run", "--preset", "n" * 10_000],
        ["run", "--set", "a" * 10_000 + ".b=1"],
        ["run", "--set", f"data.name={'ü' * 10_000}", "--out", "unused"],
        ["report", "--claims", "x" * 10_000],
        ["data", "fetch", "x" * 10_000],
    ],
    ids=lambda arguments: " ".join(arguments)[:24],
)
def test_names_of_10000_characters(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from fpga_flow.cli import main

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "internal error" not in error
    assert error
    assert list(tmp_path.iterdir()) == []


def test_a_name_with_a_nul(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No shell can give one, a program that calls us can."""
    with pytest.raises(InputError):
        resolve(Path("a\0b.toml"))
    with pytest.raises(InputError):
        RunDirectory(Path("a\0b")).lock().__enter__()


# Locks and clocks


def holder(folder: Path) -> "subprocess.Popen[str]":
    program = (
        "import sys; from pathlib import Path; from fpga_flow.pipeline.rundir import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).lock(): print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_lock_of_a_killed_owner_is_taken_over_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = holder(tmp_path)
    # An old file is no stale lock: its owner lives.
    os.utime(tmp_path / ".lock", (0, 0))
    monkeypatch.setattr(time, "time", lambda: 1e10)
    with pytest.raises(RunLockedError, match=rf"process {owner.pid} on \S+ since \d{{4}}-"):
        RunDirectory(tmp_path).lock().__enter__()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    # A new file, from the future even, is none either: its owner is dead.
    os.utime(tmp_path / ".lock", (2e9, 2e9))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with RunDirectory(tmp_path).lock():
        assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} on ")


def test_a_lock_file_of_nonsense_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"\xff" * 5_000)
    with RunDirectory(tmp_path).lock():
        assert len((tmp_path / ".lock").read_bytes()) < 400


def test_a_clock_that_jumps_back_gives_no_negative_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fpga_flow.console import Progress
    from fpga_flow.pipeline.run import execute
    from fpga_flow.pipeline.stages.context import Stage, StageContext

    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))

    def work(context: StageContext) -> None:
        time.time()
        write_text(context.output("a"), "1")

    stage = Stage("train", ("train",), work)
    arguments: dict[str, Any] = {"progress": Progress()}
    config = resolve(preset="smoke")
    first = execute(RunDirectory(tmp_path), config, [stage], **arguments)
    again = execute(RunDirectory(tmp_path), config, [stage], **arguments)
    assert [(one.status, one.ran) for one in first + again] == [("done", True), ("done", False)]
    assert all(one.seconds >= 0 for one in first + again)


def test_a_fetch_of_a_wrong_clock_keeps_what_another_is_fetching(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cache.staging(tmp_path, "mnist") as mine:
        (mine / "part").write_text("half")
        monkeypatch.setattr(time, "time", lambda: 0.0)  # the clock went back
        with cache.staging(tmp_path, "mnist"):
            assert (mine / "part").read_text() == "half"


# Whole runs


@pytest.mark.slow
@pytest.mark.finn
def test_a_run_without_room_says_so_and_continues_with_it(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))

    arguments = [*COMMAND, "run", *SETTINGS, "--until", "train", "--out", str(tmp_path / "run")]
    full = subprocess.run(arguments, capture_output=True, text=True, preexec_fn=limit)
    assert full.returncode == 2, full.stderr
    assert "Traceback" not in full.stderr
    assert re.search("disk is full|File too large", full.stderr)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["stages"]["train"]["status"] == "failed"
    again = subprocess.run(arguments, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
@pytest.mark.finn
def test_killed_at_random_moments_a_run_ends_with_equal_bytes(tmp_path: Path) -> None:
    kills, compared = campaign(tmp_path, 2, 0, [*SETTINGS, *ESTIMATE])
    assert kills.total() == 2
    assert compared >= 1

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings

import click
import pytest
from fakes import MISSING, Fakes

from divqat_brevitas.errors import CheckFailedError, DivQATWarning, InputError
from fpga_flow.cli import commands as cli
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.pipeline.stages import order

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def fakes(monkeypatch):
    fakes = Fakes()
    monkeypatch.setattr(order, "STAGES", fakes.stages)
    # The fakes' report has no numbers to sum up.
    monkeypatch.setattr(cli, "_run_text", lambda done: "summary")
    return fakes


@pytest.fixture
def divqat(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return call


def every_command(group=cli.cli, path=()):
    for name, command in group.commands.items():
        yield [*path, name], command
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


@pytest.mark.parametrize(("path", "command"), list(every_command()), ids=str)
def test_every_command_has_help_an_example_and_json(divqat, path, command):
    code, out, _ = divqat(*path, "--help")
    assert code == 0
    assert f"divqat {' '.join(path)}" in out.split("Examples:")[1]
    assert ("--json" in out) != isinstance(command, click.Group)


def test_run_from_a_preset_then_continue_from_the_directory(divqat, fakes, tmp_path):
    run = tmp_path / "run"
    code, out, err = divqat("run", "--preset", "smoke", "--out", run)
    assert (code, out) == (0, "summary\n")
    assert "train: running (first time)" in err
    assert RunDirectory(run).config() == resolve(preset="smoke")
    fakes.ran.clear()
    assert divqat("run", "--out", run)[0] == 0
    assert fakes.ran == []
    assert divqat("run", "--out", run, "--set", "compile.clock_ns=3")[0] == 0
    assert fakes.ran == ["compile"]
    assert RunDirectory(run).config().compile.clock_ns == 3


def test_run_without_anything_is_the_demo_in_runs(divqat, fakes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert divqat("run")[0] == 0
    assert RunDirectory(tmp_path / "runs" / "demo").config() == resolve(preset="demo")


def test_flags_win_over_file_and_set(divqat, fakes, tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('[run]\nname = "mine"\nseeds = [5]\n[data]\nname = "digits"\n')
    flags = ["--data", "mnist", "--bits", "w2a2", "--seeds", "1,2", "--set", "model.bits=w3a3"]
    assert divqat("run", file, "--out", tmp_path / "r", *flags)[0] == 0
    config = RunDirectory(tmp_path / "r").config()
    assert (config.data.name, config.model.bits, config.run.seeds) == ("mnist", "w2a2", (1, 2))


def test_stages_alone(divqat, fakes, tmp_path):
    run = tmp_path / "run"
    assert divqat("run", "--preset", "smoke", "--out", run, "--until", "train")[0] == 0
    assert fakes.ran == ["train float", "train qat", "train divqat"]
    fakes.ran.clear()
    assert divqat("compile", run)[0] == 0
    assert divqat("report", run)[0] == 0
    assert fakes.ran == ["compile", "report"]
    code, _, err = divqat("report", run, "--set", "train.learning_rate=1")
    assert code == 2
    assert "report needs train" in err


def test_json_is_one_document_on_stdout(divqat, fakes, tmp_path):
    code, out, _ = divqat("run", "--preset", "smoke", "--out", tmp_path, "--json")
    document = json.loads(out)
    assert code == document["exit_code"] == 0
    assert document["run"] == str(tmp_path)
    assert document["results"] == str(tmp_path / "report" / "results.json")
    assert [row["stage"] for row in document["stages"]] == ["train", "compile", "report"]
    assert {row["status"] for row in document["stages"]} == {"done"}
    code, out, _ = divqat("report", tmp_path, "--json")
    assert [row["ran"] for row in json.loads(out)["stages"]] == [False]


def test_what_a_library_prints_stays_off_stdout(divqat, fakes, tmp_path, monkeypatch):
    report = fakes.report

    def chatty(context):
        print("hello from a library")
        report(context)

    stages = [*fakes.stages[:2], order.Stage("report", (), chatty, needs=("train",))]
    monkeypatch.setattr(order, "STAGES", stages)
    _, out, err = divqat("run", "--preset", "smoke", "--out", tmp_path, "--json")
    assert json.loads(out)["exit_code"] == 0
    assert "hello from a library" in err


def test_a_warning_for_users_is_one_line_and_a_librarys_none(divqat, fakes, tmp_path, monkeypatch):
    def warned(context):
        for _ in range(2):
            warnings.warn("two pictures are skipped", DivQATWarning, stacklevel=1)
            warnings.warn("for developers", UserWarning, stacklevel=1)
        fakes.report(context)

    stages = [*fakes.stages[:2], order.Stage("report", (), warned, needs=("train",))]
    monkeypatch.setattr(order, "STAGES", stages)
    _, out, err = divqat("run", "--preset", "smoke", "--out", tmp_path)
    assert err.splitlines().count("warning: two pictures are skipped") == 1
    assert "for developers" not in out + err


@pytest.mark.slow  # takes seconds
@pytest.mark.parametrize(
    ("error", "expected", "part"),
    [
        (CheckFailedError("conv1 differs"), 1, "error: conv1 differs"),
        (InputError("no such board"), 2, "error: no such board"),
        (MISSING, 3, "error: compile did not run: finn-plus is not installed"),
        (MemoryError(), 2, "out of memory"),
        (RuntimeError("not enough memory: you tried to allocate"), 2, "out of memory"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.bin"), 2, "the disk is full"),
        (ValueError("I/O error: No space left on device (os error 28)"), 2, "the disk is full"),
        (CheckFailedError("FINN: OSError: No space left on device"), 2, "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "x.bin"), 2, "x.bin"),
        (ZeroDivisionError("oops"), 1, "bug in divqat"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again to continue"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_exit_codes(divqat, fakes, tmp_path, error, expected, part):
    fakes.compile_raises = error
    command = ["run", "--preset", "smoke", "--out", tmp_path]
    code, out, err = divqat(*command)
    assert code == expected
    assert part in err.splitlines()[-1]
    assert "Traceback" not in out + err
    # Whatever happened, the lock is free and the same command goes on.
    code, out, _ = divqat(*command, "--json")
    assert code == json.loads(out)["exit_code"] == expected
    fakes.compile_raises = None
    fakes.ran.clear()
    assert divqat(*command)[0] == 0
    assert fakes.ran == ["compile", "report"]


def test_a_missing_tool_still_ends_with_a_report(divqat, fakes, tmp_path):
    fakes.compile_raises = MISSING
    code, out, _ = divqat("run", "--preset", "smoke", "--out", tmp_path, "--json")
    assert code == 3
    status = {row["stage"]: row["status"] for row in json.loads(out)["stages"]}
    assert status == {"train": "done", "compile": "missing-tool", "report": "done"}
    assert (tmp_path / "report" / "results.json").exists()


def test_debugging_shows_the_traceback(divqat, fakes, tmp_path, monkeypatch):
    monkeypatch.setenv("DIVQAT_DEBUG", "1")
    fakes.compile_raises = ZeroDivisionError("oops")
    code, _, err = divqat("run", "--preset", "smoke", "--out", tmp_path)
    assert code == 1
    assert "Traceback" in err
    fakes.compile_raises = InputError("no such board")
    assert "Traceback" not in divqat("run", "--out", tmp_path)[2]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["rum"], "rum"),
        (["run", "--prest", "smoke"], "--prest"),
        (["train"], "DIRECTORY"),
        (["run", "nowhere.toml"], "nowhere.toml"),
        (["run", "--preset", "smok"], "did you mean 'smoke'"),
        (["run", "--preset", "smoke", "--set", "train.batch_sise=3"], "batch_size"),
        (["run", "--until", "atack"], "atack"),
        (["train", "nowhere"], "nowhere is not a run directory"),
        (["check", "nowhere.onnx"], "nowhere.onnx"),
        (["data", "fetch", "mnits"], "did you mean 'mnist'"),
    ],
)
def test_usage_errors_are_2(divqat, tmp_path, monkeypatch, arguments, part):
    monkeypatch.chdir(tmp_path)
    code, out, err = divqat(*arguments)
    assert code == 2
    assert part in err
    assert out == ""
    code, out, _ = divqat(*arguments, "--json")
    document = json.loads(out)
    assert code == document["exit_code"] == 2
    assert document["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_no_error_message():
    process = subprocess.Popen(
        [sys.executable, "-c", "from fpga_flow.cli import main; main(['data', 'list'])"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.wait()


def slow_run(path, started):
    def wait(context):
        started.set()
        time.sleep(60)

    os.setsid()
    # A suite that a shell started in the background inherits an ignored SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    order.STAGES = (order.Stage("train", (), wait),)
    cli.main(["run", "--preset", "smoke", "--out", str(path)])


def test_a_real_ctrl_c_and_a_second_run_meanwhile(divqat, fakes, tmp_path):
    started = FORK.Event()
    process = FORK.Process(target=slow_run, args=(tmp_path, started))
    process.start()
    try:
        assert started.wait(30)
        code, _, err = divqat("run", "--preset", "smoke", "--out", tmp_path)
        assert code == 2
        assert f"another divqat works in {tmp_path} (process {process.pid} on " in err
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)
        process.join(30)
        assert process.exitcode == 130
    finally:
        process.kill()
    assert divqat("run", "--preset", "smoke", "--out", tmp_path)[0] == 0


def test_data_list(divqat):
    code, out, _ = divqat("data", "list", "--json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["digits"]["status"] == "ok"
    assert set(rows["cifar10"]) == {"name", "status", "version", "enables", "get"}
    code, out, _ = divqat("data", "list")
    assert any(line.split()[:2] == ["digits", "ok"] for line in out.splitlines())


def test_data_fetch_says_where_it_is(divqat, monkeypatch, tmp_path):
    def fetch(name, root, *, progress):
        progress(f"fetching {name}")
        return root / name

    monkeypatch.setattr("divqat_brevitas.data.fetch", fetch)
    code, out, err = divqat("data", "fetch", "mnist", "--root", tmp_path)
    assert (code, out, err) == (0, f"mnist is in {tmp_path / 'mnist'}\n", "fetching mnist\n")
    _, out, _ = divqat("data", "fetch", "mnist", "--root", tmp_path, "--json")
    assert json.loads(out) == {"name": "mnist", "path": str(tmp_path / "mnist")}


def test_a_target_means_a_bitstream(divqat, fakes, tmp_path):
    run = tmp_path / "run"
    assert divqat("run", "--preset", "smoke", "--out", run, "--until", "train")[0] == 0
    assert divqat("compile", run, "--target", "ecp5-45f")[0] == 0
    section = RunDirectory(run).config().compile
    assert (section.target, section.until) == ("ecp5-45f", "bitstream")


def test_a_file_is_compiled_into_a_folder(divqat, tmp_path, monkeypatch):
    from fpga_flow.pipeline.stages import hardware

    asked = []

    def build_all(onnx, out, section, progress):
        asked.append((onnx, out, section.target, section.until, section.target_fps))
        return [ROW]

    monkeypatch.setattr(hardware, "build_all", build_all)
    model = tmp_path / "model.onnx"
    model.write_bytes(b"")
    code, _, err = divqat("compile", model)
    assert code == 2
    assert "--out DIR" in err
    out = tmp_path / "out"
    flags = ["--target", "ecp5-25f", "--set", "compile.target_fps=7"]
    code, said, _ = divqat("compile", model, "--out", out, *flags)
    assert code == 0
    names, values = (line.split() for line in said.splitlines())
    assert dict(zip(names, values, strict=True)) == {name: str(ROW[name]) for name in names}
    code, said, _ = divqat("compile", model, "--out", out, "--json")
    assert json.loads(said)["hardware"] == [ROW]
    assert asked == [
        (model, out, "ecp5-25f", "bitstream", 7),
        (model, out, "ecp5-85f", "rtl", 1000),
    ]
    code, _, err = divqat("compile", tmp_path, "--out", out)
    assert code == 2
    assert "--out goes with a QONNX file" in err


ROW = {
    **{"variant": "model", "device": "LFE5U-25F", "stage": "estimate", "tool": "finn"},
    **dict.fromkeys(("lut", "ff", "bram", "dsp", "fmax_mhz", "cycles_per_image"), 1.5),
    **{"images_per_s": 2.5, "bitstream_bytes": 3},
}


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("compile.target=ecp5-84f", "did you mean 'ecp5-85f'"),
        ("compile.fill=1.5", "compile.fill"),
        ("compile.until=bits", "bitstream"),
    ],
)
def test_impossible_hardware_is_refused_before_training(divqat, tmp_path, setting, part):
    code, _, err = divqat(
        "run", "--preset", "smoke", "--out", tmp_path / "run", "--until", "train", "--set", setting
    )
    assert code == 2
    assert part in err
    assert not (tmp_path / "run" / "train").exists()

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from fakes import MISSING, Fakes, Silent

from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.files import read_json, sha256_file
from fpga_flow.pipeline import run as pipeline
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.rundir import RunDirectory, StageRecord
from fpga_flow.pipeline.stages.context import Stage

FORK = multiprocessing.get_context("fork")
VARIANTS = ["train.variants=float,qat"]


def execute(path, fakes, overrides=(), **options):
    """One run; what the fakes did in it."""
    fakes.ran.clear()
    pipeline.execute(
        RunDirectory(path),
        resolve(overrides=[*VARIANTS, *overrides]),
        fakes.stages,
        progress=Silent(),
        **options,
    )
    return list(fakes.ran)


def files(path):
    """Every file but those that hold times or process ids, by content."""
    return {
        file.relative_to(path).as_posix(): sha256_file(file)
        for file in path.rglob("*")
        if file.is_file() and file.name not in ("manifest.json", ".lock")
    }


ALL = ["train float", "train qat", "compile", "report"]


def test_nothing_runs_twice(tmp_path):
    fakes = Fakes()
    assert execute(tmp_path, fakes) == ALL
    before = files(tmp_path)
    assert execute(tmp_path, fakes) == []
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("override", "ran"),
    [
        ("run.name=other", []),
        ("simulate.inputs=1", []),
        ("attack.epochs=1", ["report"]),
        ("compile.clock_ns=5", ["compile"]),  # the same files: the report need not run
        ("train.weight_decay=0", []),  # runs train, whose cells do not depend on it
        ("train.learning_rate=1", ["train float", "train qat"]),
    ],
)
def test_only_what_depends_on_a_change_runs(tmp_path, override, ran):
    fakes = Fakes()
    execute(tmp_path, fakes)
    # The fakes' victims.json and Verilog do not depend on the rate, so what follows train stays.
    expected = [*ran, "compile", "report"] if "train float" in ran else ran
    assert execute(tmp_path, fakes, [override]) == expected
    assert execute(tmp_path, fakes, [override]) == []


@pytest.mark.slow  # runs whole stages
@pytest.mark.parametrize(
    ("damaged", "ran"),
    [
        ("train/qat.txt", ["train qat"]),
        ("train/victims.json", []),  # train itself, but none of its cells
        ("compile/build/a/1.v", ["compile"]),
        ("report/results.json", ["report"]),
        (".tasks/train/qat.json", []),  # the stage's record is enough
        (".lock", []),
    ],
)
@pytest.mark.parametrize("how", ["delete", "corrupt", "truncate"])
def test_a_damaged_output_is_made_again(tmp_path, damaged, ran, how):
    fakes = Fakes()
    execute(tmp_path, fakes)
    before = files(tmp_path)
    file = tmp_path / damaged
    if how == "delete":
        file.unlink()
    else:
        file.write_bytes(b"" if how == "truncate" else b"?" + file.read_bytes()[1:])
    assert execute(tmp_path, fakes) == ran
    made = files(tmp_path)
    made.pop(".tasks/train/qat.json", None)
    before.pop(".tasks/train/qat.json")
    assert made == before


def test_a_users_file_counts_by_its_content(tmp_path):
    fakes, folding = Fakes(), tmp_path / "folding.json"
    folding.write_text("{}")
    overrides = [f"compile.folding={folding}"]
    execute(tmp_path / "run", fakes, overrides)
    assert execute(tmp_path / "run", fakes, overrides) == []
    folding.write_text('{"PE": 2}')
    assert execute(tmp_path / "run", fakes, overrides) == ["compile"]
    folding.unlink()
    with pytest.raises(InputError, match=r"no file .*folding\.json"):
        execute(tmp_path / "run", fakes, overrides)


def test_what_other_settings_made_is_removed(tmp_path):
    fakes = Fakes()
    execute(tmp_path, fakes, ["train.variants=float,ptq,qat"])
    (tmp_path / "train" / "notes.txt").write_text("the user's own")
    execute(tmp_path, fakes)
    assert sorted(file.name for file in (tmp_path / "train").iterdir()) == [
        "float.json",
        "float.txt",
        "notes.txt",
        "qat.json",
        "qat.txt",
        "victims.json",
    ]
    assert not (tmp_path / ".tasks/train/ptq.json").exists()


def test_a_manifest_cannot_make_us_delete_outside_the_stage(tmp_path):
    fakes, precious = Fakes(), tmp_path / "precious"
    precious.write_text("x")
    run = RunDirectory(tmp_path / "run")
    execute(run.path, fakes)
    other = run.path / "compile/build/a/1.v"
    names = (
        "../precious",
        "compile/build/a/1.v",
        str(precious),
        ".",
        "train/..",
        "train/.",
        "compile",
    )
    for name in names:
        run.write_record("train", StageRecord("failed", {}, {name: "0"}))
        execute(run.path, fakes)
        assert precious.exists()
        assert other.exists()
        assert (run.path / "train" / "victims.json").exists()


def test_a_failed_check_stops_and_is_recorded(tmp_path):
    fakes = Fakes()
    fakes.compile_raises = CheckFailedError("layer conv1 differs")
    with pytest.raises(CheckFailedError):
        execute(tmp_path, fakes)
    run = RunDirectory(tmp_path)
    record = run.record("compile")
    assert record is not None
    assert (record.status, record.reason) == ("failed", "layer conv1 differs")
    assert run.record("report") is None
    fakes.compile_raises = None
    assert execute(tmp_path, fakes) == ["compile", "report"]


def test_a_missing_tool_does_not_stop_the_rest(tmp_path):
    fakes = Fakes()
    fakes.compile_raises = MISSING
    assert execute(tmp_path, fakes) == ALL
    record = RunDirectory(tmp_path).record("compile")
    assert record is not None
    assert record.status == "missing-tool"
    assert "pip install finn-plus" in record.reason
    # Once the tool is there, its stage and what uses it run, and nothing else.
    fakes.compile_raises = None
    assert execute(tmp_path, fakes) == ["compile", "report"]
    assert execute(tmp_path, fakes) == []


def test_what_was_made_before_a_tool_lacked_is_kept_and_used(tmp_path):
    fakes = Fakes()
    fakes.compile_makes_estimate = True
    fakes.compile_raises = MISSING
    execute(tmp_path, fakes)
    record = RunDirectory(tmp_path).record("compile")
    assert record is not None
    assert list(record.outputs) == ["compile/estimate.txt"]
    assert read_json(tmp_path / "report" / "results.json") == {"readable": ["compile", "train"]}
    fakes.compile_makes_estimate = False
    assert execute(tmp_path, fakes) == ["compile", "report"]
    assert not (tmp_path / "compile" / "estimate.txt").exists()


def test_a_missing_tool_leaves_no_results_of_other_settings(tmp_path):
    fakes = Fakes()
    execute(tmp_path, fakes)
    fakes.compile_raises = MISSING
    execute(tmp_path, fakes, ["compile.clock_ns=5"])
    assert not (tmp_path / "compile" / "build" / "a" / "1.v").exists()
    record = RunDirectory(tmp_path).record("compile")
    assert record is not None
    assert record.outputs == {}


def test_what_needs_a_missing_tool_is_not_run_either(tmp_path):
    fakes = Fakes()
    fakes.compile_raises = MISSING
    train, compile_, _ = fakes.stages
    last = Stage("report", (), fakes.report, needs=("compile",))
    fakes.stages = [train, compile_, last]
    assert execute(tmp_path, fakes) == ALL[:3]
    record = RunDirectory(tmp_path).record("report")
    assert record is not None
    assert record.status == "missing-tool"
    assert record.reason.startswith("needs compile")


def test_ctrl_c_keeps_finished_cells_and_frees_the_lock(tmp_path):
    fakes = Fakes()
    fakes.compile_raises = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        execute(tmp_path, fakes)
    record = RunDirectory(tmp_path).record("compile")
    assert record is not None
    assert record.reason == "interrupted"
    fakes.compile_raises = None
    assert execute(tmp_path, fakes) == ["compile", "report"]


def test_a_stage_alone_needs_what_is_before_it(tmp_path):
    fakes = Fakes()
    with pytest.raises(InputError, match=r"compile needs train.*first time.*divqat train"):
        execute(tmp_path, fakes, only="compile")
    assert execute(tmp_path, fakes, only="train") == ALL[:2]
    assert execute(tmp_path, fakes, only="report") == ["report"]  # compile is optional
    assert execute(tmp_path, fakes, only="compile") == ["compile"]
    with pytest.raises(InputError, match=r"report needs compile.*\[compile\]"):
        execute(tmp_path, fakes, ["compile.clock_ns=5"], only="report")
    with pytest.raises(InputError, match=r"report needs train.*\[train\]"):
        execute(tmp_path, fakes, ["train.learning_rate=1"], only="report")


def test_names_are_looked_up_before_anything_runs(tmp_path):
    fakes = Fakes()

    def refuse(config):
        raise InputError("unknown pool")

    fakes.stages[2] = Stage("report", (), fakes.report, check=refuse)
    with pytest.raises(InputError, match="unknown pool"):
        execute(tmp_path / "run", fakes)
    assert fakes.ran == []
    assert not (tmp_path / "run").exists()


def killed(path, count, after):
    """Run in a process that dies by SIGKILL at its ``count``-th file, before or after the rename.

    Every file of a run appears by a rename, so these are all the moments that matter.
    """
    rename, seen = Path.replace, 0

    def replace(self, target):
        nonlocal seen
        seen += 1
        if seen == count and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(self, target)
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)

    Path.replace = replace
    execute(path, Fakes())


def outputs(path):
    return {name: (r.status, r.outputs) for name, r in RunDirectory(path).records().items()}


@pytest.mark.slow  # runs whole stages
def test_killed_anywhere_a_run_ends_with_the_same_files(tmp_path):
    execute(tmp_path / "whole", Fakes())
    expected = files(tmp_path / "whole")
    count, exitcode = 0, -signal.SIGKILL
    while exitcode == -signal.SIGKILL:
        count += 1
        for after in (False, True):
            path = tmp_path / f"{count}-{after}"
            process = FORK.Process(target=killed, args=(path, count, after))
            process.start()
            process.join()
            exitcode = process.exitcode
            execute(path, Fakes())
            assert files(path) == expected, (count, after)
            assert outputs(path) == outputs(tmp_path / "whole")
    # The last process lived: every file of the run had its turn.
    assert exitcode == 0
    assert count > len(expected)


def test_what_a_killed_cell_of_other_settings_left_is_removed(tmp_path):
    # The second victim's first file was just written, its record was not.
    process = FORK.Process(target=killed, args=(tmp_path, 8, True))
    process.start()
    process.join()
    assert (tmp_path / "train" / "qat.txt").exists()
    execute(tmp_path, Fakes(), ["train.variants=float"])
    names = sorted(file.name for file in (tmp_path / "train").iterdir())
    assert names == ["float.json", "float.txt", "victims.json"]


def test_killed_runs_do_not_repeat_finished_cells(tmp_path):
    # Files so far: config, manifest, then a record, two files and the record of a first victim.
    process = FORK.Process(target=killed, args=(tmp_path, 6, True))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert execute(tmp_path, Fakes()) == ["train qat", "compile", "report"]

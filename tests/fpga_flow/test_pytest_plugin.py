"""The plug-in in projects of its users."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# All that the inner runs import: pytester forgets what was first imported in one, and NumPy
# cannot be imported a second time.
import fpga_flow.engines
from divqat_brevitas.errors import InputError
from fpga_flow import doctor
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.pytest_plugin import NEEDS

pytest_plugins = ["pytester"]


@pytest.fixture
def project(pytester, monkeypatch):
    """A user's project, with our entry point and no other plug-in's: they take seconds."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(text, *arguments):
        pytester.makepyfile(text)
        return pytester.runpytest_inprocess("-p", "divqat", "--strict-markers", "-ra", *arguments)

    return run


def findings(monkeypatch, missing=()):
    asked = []

    def look_for(name):
        asked.append(name)
        status = "missing" if name in missing else "ok"
        return doctor.Finding(name, status, "1", "x", f"pip install {name}" if status else "")

    monkeypatch.setattr(doctor, "look_for", look_for)
    return asked


ALL = "import pytest\n" + "".join(
    f"@pytest.mark.{marker}\ndef test_{marker}(): pass\n@pytest.mark.{marker}\n"
    f"def test_{marker}_again(): pass\n"
    for marker in NEEDS
)


def test_marked_tests_run_where_the_tools_are_and_each_is_looked_for_once(project, monkeypatch):
    asked = findings(monkeypatch)
    project(ALL).assert_outcomes(passed=2 * len(NEEDS))
    assert sorted(asked) == sorted({tool for tools in NEEDS.values() for tool in tools})


def test_marked_tests_are_skipped_with_the_reason_where_a_tool_lacks(project, monkeypatch):
    findings(monkeypatch, missing=("vivado", "c++-compiler"))
    result = project(ALL)
    result.assert_outcomes(passed=2 * len(NEEDS) - 4, skipped=4)
    result.stdout.fnmatch_lines(
        [
            "SKIPPED*needs_verilator: c++-compiler is missing (pip install c++-compiler)",
            "SKIPPED*needs_vivado: vivado is missing (pip install vivado)",
        ]
    )


def test_a_marked_class_counts_for_its_tests_and_others_ask_nothing(project, monkeypatch):
    asked = findings(monkeypatch, missing=("yosys",))
    project(
        """
        import pytest

        def test_plain(): pass

        @pytest.mark.needs_yosys
        class TestSynthesis:
            def test_one(self): pass
        """
    ).assert_outcomes(passed=1, skipped=1)
    assert asked == ["yosys"]


def test_every_marker_names_what_the_doctor_knows(monkeypatch):
    monkeypatch.setattr(doctor, "_finn", lambda: doctor.Finding("finn-plus", "ok", "", "", ""))
    for tools in NEEDS.values():
        for tool in tools:
            assert doctor.look_for(tool).name == tool
    with pytest.raises(InputError, match="did you mean 'verilator'"):
        doctor.look_for("verilater")


MODEL = """
import numpy as np, pytest, torch
from torch import nn
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import PlainLearner, TorchPredictor

torch.manual_seed(0)
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
IMAGES = np.random.default_rng(0).random((50, 1, 8, 8), np.float32)
LABELS = TorchPredictor(MODEL).predict(IMAGES).argmax(axis=1)
THEFT = dict(images=IMAGES, labels=LABELS, pool=IMAGES, budget=40,
             learner=PlainLearner(surrogate="mlp", epochs=1))
"""


@pytest.mark.slow  # a process of its own, which imports torch
def test_the_assertions_come_as_fixtures(pytester):
    pytester.makepyfile(
        MODEL
        + """
def test_exact(assert_bit_exact):
    assert_bit_exact(MODEL, TorchPredictor(MODEL), images=IMAGES)

def test_not_exact(assert_bit_exact):
    assert_bit_exact(MODEL, nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), images=IMAGES)

def test_theft(assert_extraction_at_most):
    assert len(assert_extraction_at_most(MODEL, 1.0, **THEFT)) == 1

def test_theft_too_good(assert_extraction_at_most):
    assert_extraction_at_most(MODEL, 0.0, **THEFT)
"""
    )
    result = pytester.runpytest_subprocess()  # torch is not imported twice in one process
    result.assert_outcomes(passed=2, failed=2)
    # The helper's own lines stay out of the report.
    result.stdout.fnmatch_lines(
        ["E*the predictions differ on 50 of 50 images*", "E*made clones of accuracy*"]
    )
    result.stdout.no_fnmatch_line("*testing.py*")


def test_engines_are_loaded_once_and_closed(project, monkeypatch):
    class Engine:
        closed = 0

        def close(self):
            Engine.closed += 1

    loaded = []

    def load_engine(path, engine):
        loaded.append((Path(path).name, engine))
        return Engine()

    monkeypatch.setattr(fpga_flow.engines, "load_engine", load_engine)
    project(
        """
        def test_one(divqat_engine):
            assert divqat_engine("a.onnx") is divqat_engine("./a.onnx", "integer")

        def test_two(divqat_engine):
            assert divqat_engine("a.onnx") is not divqat_engine("a.onnx", engine="rtl")
        """
    ).assert_outcomes(passed=2)
    assert loaded == [("a.onnx", "integer"), ("a.onnx", "rtl")]
    assert Engine.closed == 2


RUN = """
def test_run(divqat_run):
    assert divqat_run.config().run.seeds == (0, 7)
"""


@pytest.fixture
def run_directory(pytester):
    run = RunDirectory(pytester.path / "runs" / "mine")
    run.save_config(resolve(overrides=["run.seeds=0,7"]))


@pytest.mark.usefixtures("run_directory")
def test_the_run_directory_comes_by_option_or_setting(project, pytester):
    project(RUN, "--divqat-run", "runs/mine").assert_outcomes(passed=1)
    pytester.makeini("[pytest]\ndivqat_run = runs/mine")
    project(RUN).assert_outcomes(passed=1)


def test_without_a_run_directory_the_test_is_skipped_and_a_wrong_one_is_an_error(project):
    result = project(RUN)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*pytest --divqat-run DIR*"])
    result = project(RUN, "--divqat-run", "nowhere")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*nowhere is not a run directory*"])


def test_it_can_be_turned_off(pytester):
    pytester.makepyfile("def test_a(assert_bit_exact): pass")
    result = pytester.runpytest_inprocess("-p", "no:divqat")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'assert_bit_exact' not found*"])


@pytest.mark.slow  # two processes of pytest
def test_it_costs_other_projects_two_small_modules(pytester):
    """Compared by what is imported: with the plug-in, and without."""
    pytester.makepyfile(
        "import json, pathlib, sys\n"
        "def test_a():\n"
        "    pathlib.Path('modules.json').write_text(json.dumps(sorted(sys.modules)))"
    )

    def modules(*arguments):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        subprocess.run(command, cwd=pytester.path, check=True, capture_output=True)
        return set(json.loads((pytester.path / "modules.json").read_text()))

    added = modules() - modules("-p", "no:divqat")
    assert added == {"fpga_flow", "fpga_flow.pytest_plugin"}

"""The functions behind the commands."""

from pathlib import Path

import pytest
from fakes import MISSING, Fakes

import fpga_flow
from divqat_brevitas.errors import InputError
from fpga_flow.api import HardwareBuild, run_stages
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.pipeline.stages import order


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    fakes = Fakes()
    monkeypatch.setattr(order, "STAGES", fakes.stages)
    return fakes


def test_mapped_settings_mean_what_texts_mean() -> None:
    mapped = {
        "model.bits": "w8a8",
        "attack.budgets": [200, 1000],
        "compile.fill": None,
        "model.per_channel": False,
        "compile.folding": Path("folding.json"),
    }
    config = resolve(overrides=mapped)
    assert (config.model.bits, config.attack.budgets) == ("w8a8", (200, 1000))
    assert (config.compile.fill, config.model.per_channel) == (None, False)
    assert config.compile.folding == Path("folding.json").absolute()
    assert resolve(overrides=["model.bits=w8a8"]).model.bits == "w8a8"
    assert resolve(overrides="model.bits=w8a8").model.bits == "w8a8"


def test_a_run_continues_with_its_own_settings(fakes: Fakes, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = run_stages(preset="smoke", out=out, until="train", overrides={"run.seeds": [3]})
    assert [stage.stage for stage in first.stages] == ["train"]
    again = run_stages(out=out)
    assert RunDirectory(out).config().run.seeds == (3,)
    assert [stage.ran for stage in again.stages] == [False, True, True]
    assert again.directory == out
    only = run_stages(out=out, only="report", overrides=["attack.budgets=7"])
    assert [(stage.stage, stage.ran) for stage in only.stages] == [("report", True)]


def test_a_missing_tool_is_said_and_no_exception(fakes: Fakes, tmp_path: Path) -> None:
    fakes.compile_raises = MISSING
    done = run_stages(preset="smoke", out=tmp_path / "run")
    assert done.missing is not None
    assert done.missing.stage == "compile"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"until": "trian"}, "did you mean 'train'"),
        ({"until": "train", "only": "train"}, "exclude each other"),
        ({"only": "train"}, "name its directory"),
        ({"only": "train", "out": "nowhere"}, "not a run directory"),
        ({"preset": "smok"}, "did you mean 'smoke'"),
    ],
)
def test_bad_arguments_are_one_sentence(
    arguments: dict[str, str], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=part):
        fpga_flow.run(**arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_stopped_early_has_no_design(tmp_path: Path) -> None:
    built = HardwareBuild(tmp_path / "model.onnx", tmp_path, ())
    assert built.bitstream is None
    for name in ("rtl", "netlist"):
        with pytest.raises(InputError, match="stopped at its estimate"):
            built.engine(name)
    with pytest.raises(InputError, match="did you mean 'netlist'"):
        built.engine("netlists")


def test_a_file_that_is_not_there_is_not_built(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        fpga_flow.build(tmp_path / "model.onnx", "ecp5-85f", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []

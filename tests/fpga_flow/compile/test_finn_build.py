"""What a build leaves behind, its folding, the advice where it does not fit, refusals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from finn_networks import finn_worker

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import sha256_file
from fpga_flow.compile import CompileSettings, FinnBuild, compile_finn
from fpga_flow.compile.prediction import fitting, fitting_advice, load_prediction
from fpga_flow.targets import Resources, open_target

pytestmark = pytest.mark.finn


def contents(folder: Path) -> dict[str, str]:
    """File name -> hash, without what tells the time."""
    timed = {"finn.log", "build.json"}
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in timed
    }


def write_folding(path: Path, build: FinnBuild, layer: str, **attributes) -> Path:
    folding = json.loads(build.folding.read_text())
    folding.setdefault(layer, {}).update(attributes)
    path.write_text(json.dumps(folding))
    return path


def test_estimates_add_up(cnn_build):
    estimates = cnn_build.estimates
    slowest = max(estimates.layers, key=lambda layer: layer.cycles)
    assert estimates.cycles_per_image == slowest.cycles
    assert estimates.slowest_layer == slowest.name
    assert estimates.latency_cycles >= estimates.cycles_per_image
    assert estimates.images_per_s == pytest.approx(1e9 / 5.0 / slowest.cycles)
    for resource in ("lut", "bram", "dsp"):
        total = sum(getattr(layer, resource) for layer in estimates.layers)
        assert getattr(estimates, resource) == total
    assert estimates.lut > 0
    assert estimates.images_per_s >= 10_000


def test_rtl_of_every_layer_is_there_and_names_no_machine_path(cnn_build):
    for layer in cnn_build.estimates.layers:
        files = {path.suffix for path in (cnn_build.rtl / layer.name).iterdir()}
        assert files & {".v", ".sv", ".cpp"}, layer.name
        if layer.name.startswith(("MVAU", "Thresholding")):
            assert ".dat" in files
    memory = (cnn_build.rtl / "MVAU_rtl_0" / "MVAU_rtl_0_memstream_wrapper.v").read_text()
    assert '"./memblock.dat"' in memory
    private = str(cnn_build.folder.parent).encode()
    for path in cnn_build.folder.rglob("*"):
        if path.is_file() and path.name != "finn.log":
            assert private not in path.read_bytes(), path


def test_building_again_gives_the_same_files_and_no_file_in_the_home(
    cnn_build, cnn_onnx, tmp_path, monkeypatch
):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("FINN_BUILD_DIR", str(home))
    again = compile_finn(
        cnn_onnx, tmp_path / "again", CompileSettings(target_fps=10_000, clock_ns=5.0)
    )
    assert contents(again.folder) == contents(cnn_build.folder)
    assert list(home.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "home"]


def test_folding_of_the_user_is_honoured(cnn_build, cnn_onnx, tmp_path):
    path = write_folding(tmp_path / "folding.json", cnn_build, "MVAU_rtl_1", PE=4, SIMD=8)
    build = compile_finn(
        cnn_onnx, tmp_path / "out", CompileSettings(folding_json=path), finn_worker()
    )
    before = {layer.name: layer for layer in cnn_build.estimates.layers}
    for layer in build.estimates.layers:
        expected = (
            (4, 8)
            if layer.name == "MVAU_rtl_1"
            else (before[layer.name].pe, before[layer.name].simd)
        )
        assert (layer.pe, layer.simd) == expected
    assert json.loads(build.folding.read_text())["MVAU_rtl_1"]["PE"] == 4


@pytest.mark.parametrize(
    ("layer", "attributes", "said"),
    [
        ("MVAU_hls_1", {"PE": 2}, ["'MVAU_hls_1'", "nearest one is 'MVAU_rtl_1'"]),
        ("MVAU_rtl_1", {"SIMDD": 2}, ["'SIMDD'", "'MVAU_rtl_1'", "nearest one is 'SIMD'"]),
        ("MVAU_rtl_1", {"PE": 5}, ["PE=5", "'MVAU_rtl_1'", "divide 12", "1, 2, 3, 4, 6, 12"]),
        ("MVAU_rtl_1", {"SIMD": "8"}, ["SIMD='8'", "whole number"]),
        ("MVAU_rtl_1", {"ram_style": "blocks"}, ["ram_style='blocks'", "'block', "]),
        ("Thresholding_rtl_0", {"PE": 0}, ["PE=0", "divide 8"]),
    ],
)
def test_folding_that_does_not_fit_is_refused_and_the_former_build_stays(
    cnn_build, cnn_onnx, tmp_path, layer, attributes, said
):
    path = write_folding(tmp_path / "stale.json", cnn_build, layer, **attributes)
    before = contents(cnn_build.folder)
    with pytest.raises(InputError) as error:
        compile_finn(cnn_onnx, cnn_build.folder, CompileSettings(folding_json=path), finn_worker())
    for words in ["stale.json", *said]:
        assert words in str(error.value)
    assert error.value.exit_code == 2
    assert contents(FinnBuild.load(cnn_build.folder).folder) == before


@pytest.mark.parametrize("text", ["[1]", '{"MVAU_rtl_0": 3}', "{"])
def test_folding_file_of_another_shape(cnn_onnx, tmp_path, text):
    path = tmp_path / "folding.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"folding\.json is n"):
        compile_finn(cnn_onnx, tmp_path / "out", CompileSettings(folding_json=path))


@pytest.mark.parametrize("layer", ["MVAU_rtl_0", "Defaults"])
@pytest.mark.parametrize("attribute", ["code_gen_dir_ipgen", "exec_mode", "executable_path"])
def test_a_folding_names_no_file_and_no_program(cnn_onnx, tmp_path, layer, attribute):
    path = tmp_path / "folding.json"
    path.write_text(json.dumps({layer: {attribute: str(tmp_path)}}))
    with pytest.raises(InputError, match=f"sets '{attribute}' of the layer '{layer}'"):
        compile_finn(cnn_onnx, tmp_path / "out", CompileSettings(folding_json=path))


@pytest.mark.slow  # builds with FINN
def test_unknown_board_leaves_a_log_but_no_build(cnn_onnx, tmp_path):
    with pytest.raises(InputError, match="unknown board 'Pynq-Z11': did you mean 'Pynq-Z1'"):
        compile_finn(cnn_onnx, tmp_path / "out", CompileSettings(board="Pynq-Z11"))
    with pytest.raises(InputError, match="no finished FINN build"):
        FinnBuild.load(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["finn.log"]


def test_a_folder_of_the_user_is_not_replaced(cnn_onnx, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds something else than a FINN build"):
        compile_finn(cnn_onnx, tmp_path, CompileSettings())
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    "setting", [{"clock_ns": 0.0}, {"clock_ns": float("nan")}, {"target_fps": 0}, {"part": "Pynq"}]
)
def test_settings_out_of_range(setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        CompileSettings(**setting)


def test_a_build_that_lost_a_file_is_not_trusted(cnn_build, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(cnn_build.folder, copy)
    (copy / "models" / "step_streamline.onnx").unlink()
    with pytest.raises(InputError, match=r"step_streamline\.onnx is gone"):
        FinnBuild.load(copy)


SMALL = open_target("ecp5-12f")


@pytest.fixture(scope="module")
def fast_build(cnn_onnx, tmp_path_factory):
    out = tmp_path_factory.mktemp("finn") / "fast"
    settings = CompileSettings(target="ecp5-85f", target_cycles=300)
    return compile_finn(cnn_onnx, out, settings, finn_worker())


def test_the_advice_is_a_folding_that_builds_and_is_smaller(fast_build, cnn_onnx, tmp_path):
    before = load_prediction(fast_build)
    cells = int(before.resources.lut)
    device = replace(SMALL, capacity=replace(SMALL.capacity, lut=cells))
    over = {"lut": (cells * 11 // 10, cells)}  # synthesis needed a tenth more than estimated
    said = fitting_advice(fast_build, device, over, tmp_path)
    file = tmp_path / "fitting_folding.json"
    assert str(file) in said
    found = fitting(fast_build, device, over)
    assert f"{found.cycles_per_image:,} cycles an image" in said
    settings = CompileSettings(target="ecp5-12f", folding_json=file)
    build = compile_finn(cnn_onnx, tmp_path / "smaller", settings, finn_worker())
    smaller = load_prediction(build)
    assert smaller.cycles_per_image == found.cycles_per_image > before.cycles_per_image
    assert smaller.resources.lut * 11 / 10 <= 0.8 * cells


def test_where_nothing_fits_it_says_so(fast_build, tmp_path):
    tiny = replace(SMALL, capacity=Resources(lut=100, ff=100, bram=1, dsp=0))
    said = fitting_advice(fast_build, tiny, {"lut": (24_288, 100)}, tmp_path)
    assert said.startswith("No folding of this network is expected to fit ecp5-12f")
    assert not (tmp_path / "fitting_folding.json").exists()

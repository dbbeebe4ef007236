"""What a user is told whose design does not fit: a folding that should, ready to be used."""

from dataclasses import replace

import pytest

from fpga_flow.compile import CompileSettings, compile_finn
from fpga_flow.compile.prediction import fitting, fitting_advice, load_prediction
from fpga_flow.targets import Resources, open_target

pytestmark = pytest.mark.finn
SMALL = open_target("ecp5-12f")


@pytest.fixture(scope="module")
def fast_build(cnn_onnx, tmp_path_factory):
    out = tmp_path_factory.mktemp("finn") / "fast"
    return compile_finn(cnn_onnx, out, CompileSettings(target="ecp5-85f", target_cycles=300))


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
    smaller = load_prediction(compile_finn(cnn_onnx, tmp_path / "smaller", settings))
    assert smaller.cycles_per_image == found.cycles_per_image > before.cycles_per_image
    assert smaller.resources.lut * 11 / 10 <= 0.8 * cells


def test_where_nothing_fits_it_says_so(fast_build, tmp_path):
    tiny = replace(SMALL, capacity=Resources(lut=100, ff=100, bram=1, dsp=0))
    said = fitting_advice(fast_build, tiny, {"lut": (24_288, 100)}, tmp_path)
    assert said.startswith("No folding of this network is expected to fit ecp5-12f")
    assert not (tmp_path / "fitting_folding.json").exists()

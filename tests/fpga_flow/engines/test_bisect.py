"""From a QONNX file to RTL: equal integers, and planted faults that are found."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_models import random_images, small_network
from finn_networks import finn_worker

from divqat_brevitas.errors import InputError
from fpga_flow.compile import CompileSettings, FinnBuild, compile_finn
from fpga_flow.engines.bisect import bisect
from fpga_flow.engines.rtl import RtlEngine
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.rtl import Design, generate_design

pytestmark = [pytest.mark.finn, pytest.mark.slow]
Built = tuple[Path, FinnBuild, Design]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    pytest.importorskip("finn")
    folder = tmp_path_factory.mktemp("bisect")
    path = small_network(folder / "model.onnx")
    settings = CompileSettings(target_fps=100_000)
    build = compile_finn(path, folder / "build", settings, finn_worker())
    return path, build, generate_design(build, folder / "design", worker=finn_worker())


@pytest.fixture
def faulty(built: Built, tmp_path: Path) -> Design:
    shutil.copytree(built[2].folder, tmp_path / "faulty")
    return Design.load(tmp_path / "faulty")


def change(design: Design, name: str) -> None:
    """Flip the lowest bit of every word of a memory file."""
    path = design.folder / name
    words = path.read_text().split()
    path.write_text("\n".join(f"{int(word, 16) ^ 1:0{len(word)}x}" for word in words) + "\n")


def test_rtl_equals_the_integer_engine_under_stalls(built: Built) -> None:
    images = random_images(100)
    with RtlEngine(built[2], idle=0.2, back_pressure=0.3) as engine:
        answered = engine.accumulators(images)
    expected = IntegerEngine(built[0]).accumulators(images)
    assert list(answered) == ["Gemm_0"]
    assert np.array_equal(answered["Gemm_0"], expected["Gemm_0"])


def test_no_fault(built: Built) -> None:
    path, build, design = built
    found = bisect(path, random_images(6), build=build, design=design)
    assert found.fault is None
    assert [level.name for level in found.levels] == [
        "QONNX",
        *(f"FINN: {step}" for step in build.steps),
        "RTL",
    ]
    assert all(level.tensors > 1 and level.mismatches == 0 for level in found.levels)
    assert str(found).endswith("No difference.")


def test_changed_weights_are_found(built: Built, faulty: Design) -> None:
    change(faulty, "MVAU_rtl_0_weights.dat")
    fault = bisect(built[0], random_images(6), design=faulty).fault
    assert fault is not None
    assert (fault.level, fault.nodes[-1]) == ("RTL", "MVAU_rtl_0")
    assert "Conv" in fault.layer
    assert not any("Threshold" in name for name in fault.nodes)


def test_changed_weights_of_the_last_layer_are_found(built: Built, faulty: Design) -> None:
    change(faulty, "MVAU_rtl_1_weights.dat")
    found = bisect(built[0], random_images(6), design=faulty)
    assert found.fault is not None
    assert found.fault.nodes[-1] == "MVAU_rtl_1"
    assert "At fault is one of:" in str(found)


def test_changed_thresholds_are_found(built: Built, faulty: Design) -> None:
    for name in (name for name in faulty.data if name.startswith("Thresholding_rtl_0")):
        change(faulty, name)
    fault = bisect(built[0], random_images(50), design=faulty).fault
    assert fault is not None
    assert fault.nodes == ("Thresholding_rtl_0",)
    assert "Quant" in fault.layer


def test_a_stream_that_stops_is_found(built: Built, faulty: Design) -> None:
    name = next(node.name for node in faulty.nodes if node.op == "Thresholding")
    top = faulty.folder / "src" / "divqat_top.sv"
    text = top.read_text().replace(f".m_axis_tvalid({name}_tvalid)", ".m_axis_tvalid()")
    top.write_text(text.replace("endmodule", f"\tassign\t{name}_tvalid = 1'b0;\nendmodule"))
    fault = bisect(built[0], random_images(2), design=faulty).fault
    assert fault is not None
    assert fault.nodes == (name,)
    assert "offers no more" in fault.detail


def test_a_design_of_another_file_is_refused(built: Built) -> None:
    path, _, design = built
    with pytest.raises(InputError, match="of another file"):
        bisect(path, random_images(1), design=replace(design, onnx_sha256="0" * 64))

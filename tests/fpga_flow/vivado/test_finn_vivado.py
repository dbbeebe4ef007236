"""Stock FINN for AMD's tools: how far it comes without them, and how it calls them.

Vivado itself was never run here. A stand-in records its calls and makes the files FINN looks for.
"""

import json
import re
import shutil
import sys
from pathlib import Path

import finn_networks as networks
import numpy as np
import pytest
from qonnx.core.modelwrapper import ModelWrapper

from divqat_brevitas.errors import InputError, ToolMissingError
from divqat_brevitas.files import read_json
from fpga_flow.compile import BuildError
from fpga_flow.compile.configuration import VivadoSettings, vivado_target
from fpga_flow.lowering import lower
from fpga_flow.lowering.input_step import InputStep
from fpga_flow.targets import TARGETS, VivadoTarget
from fpga_flow.vivado.handover import VivadoMissingError, build_vivado, lacking

STAND_IN = Path(__file__).parent / "vendor_stand_in.py"


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A machine with FINN's downloads, without vendor tools; its home is empty."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("machine")
        for name in ("home", "dependencies", "tools"):
            (folder / name).mkdir()
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("FINN_DEPS", str(folder / "dependencies"))
        patch.setenv("PATH", f"{folder / 'tools'}:/usr/bin:/bin")
        patch.delenv("XILINX_VIVADO", raising=False)
        patch.delenv("FINN_TOOL_DIR_OVERRIDE", raising=False)
        yield folder


@pytest.fixture(scope="module")
def vendor_tools(machine):
    """The same machine with stand-ins of Vivado 2023.2 and Vitis HLS."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("vivado", "vitis_hls"):
            tool = machine / "tools" / name
            tool.write_text(f"#!{sys.executable}\n" + STAND_IN.read_text())
            tool.chmod(0o755)
        for name in ("finn-hlslib", "board_files/pynq-z1"):
            (machine / "dependencies" / name).mkdir(parents=True)
        patch.setenv("XILINX_VIVADO", str(machine / "Vivado" / "2023.2"))
        patch.setenv("FINN_XSI", str(machine / "xsi"))  # FINN builds its simulator there
        patch.setenv("STAND_IN_LOG", str(machine / "calls.jsonl"))
        yield machine
    for name in ("tools", "dependencies"):
        shutil.rmtree(machine / name)
        (machine / name).mkdir()


@pytest.fixture(scope="module")
def stopped_build(machine, mlp_onnx, tmp_path_factory):
    with pytest.raises(VivadoMissingError) as error:
        build_vivado(mlp_onnx, tmp_path_factory.mktemp("z1") / "build", VivadoSettings())
    assert list((machine / "home").iterdir()) == []
    return error.value


@pytest.mark.finn
def test_without_vivado_the_message_lists_what_lacks(stopped_build):
    assert isinstance(stopped_build, ToolMissingError)
    assert stopped_build.exit_code == 3
    assert stopped_build.step == "step_create_stitched_ip"
    assert stopped_build.not_run[0] == "step_create_stitched_ip"
    assert "step_synthesize_bitfile" in stopped_build.not_run
    assert [phrase.split(" (")[0] for phrase in stopped_build.lacks] == [
        "vivado",
        "Vivado's settings, settings64.sh",
        "Vitis HLS, vitis_hls or vitis-run",
        "finn-hlslib",
        "board files of Pynq-Z1",
    ]
    for phrase in stopped_build.lacks:
        assert phrase in str(stopped_build)
    record = read_json(stopped_build.folder / "vivado.json")
    assert record["status"] == "stopped"
    assert record["lacks"] == list(stopped_build.lacks)
    assert record["not_run"] == list(stopped_build.not_run)
    assert record["fifos"] == "force_minimal_fifos"


@pytest.mark.finn
def test_without_vivado_everything_up_to_its_call_is_kept(stopped_build):
    script = (stopped_build.folder / "stitched_ip" / "make_project.tcl").read_text()
    model = ModelWrapper(
        str(stopped_build.folder / "intermediate_models" / "step_set_fifo_depths.onnx")
    )
    names = [node.name for node in model.graph.node]
    assert "MVAU_rtl_0" in names
    assert "StreamingFIFO_rtl_0" in names
    for name in names:  # every layer is placed in the block design
        assert re.search(rf"^create_bd_cell .*\b{name}$", script, re.MULTILINE), name
    assert "-part xc7z020clg400-1" in script
    for source in re.findall(r"add_files -norecurse (\S+\.s?v)$", script, re.MULTILINE):
        assert Path(source).exists() or source.startswith("$::env") or "_wrapper.v" in source
    report = read_json(stopped_build.folder / "report" / "estimate_network_performance.json")
    assert report["estimated_throughput_fps"] >= 1000


@pytest.mark.finn
def test_the_driver_is_there_without_a_bitfile(stopped_build, mlp_onnx):
    settings = read_json(stopped_build.folder / "driver" / "settings.json")["driver_information"]
    shapes = settings["io_shape_dict"]
    assert settings["platform"] == "zynq-iodma"
    assert (shapes["idt"], shapes["ishape_normal"]) == (["DataType['UINT8']"], [[1, 64]])
    assert (shapes["idma_names"], shapes["odma_names"]) == (["idma0"], ["odma0"])
    host, network = read_json(stopped_build.folder / "driver" / "divqat.json"), lower(mlp_onnx)
    images = networks.images((1, 8, 8), 4)
    codes = InputStep.from_record(host["input_step"]).codes(images)
    assert np.array_equal(codes, network.input.codes(images).reshape(4, 64))
    assert host["output_scale"] == network.output.scale.tolist()
    assert host["output_bias"] == network.output.bias.tolist()


@pytest.fixture(scope="module")
def finished_build(vendor_tools, cnn_onnx, tmp_path_factory):
    settings = VivadoSettings(clock_ns=8.0)
    return build_vivado(cnn_onnx, tmp_path_factory.mktemp("z1") / "build", settings)


@pytest.mark.finn
def test_with_vivado_every_tool_is_called_as_finn_does(vendor_tools, finished_build):
    calls = [json.loads(line) for line in (vendor_tools / "calls.jsonl").read_text().splitlines()]
    hls = [re.search(r"hls_syn_(\w+)\.tcl", c["arguments"][-1])[1] for c in calls[:2]]
    assert hls == ["Pool_hls_0", "Pool_hls_1"] or hls == ["Pool_hls_1", "Pool_hls_0"]
    later = [(c["tool"], Path(c["arguments"][-1]).name.split("_hls_")[0]) for c in calls[2:]]
    assert later == [
        ("vivado", "make_project.tcl"),  # the network
        ("vitis_hls", "hls_syn_StreamingDataflowPartition_0_IODMA"),
        ("vivado", "make_project.tcl"),
        ("vivado", "make_project.tcl"),
        ("vitis_hls", "hls_syn_StreamingDataflowPartition_2_IODMA"),
        ("vivado", "make_project.tcl"),
        ("vivado", "ip_config.tcl"),
    ]
    for call in calls:
        assert Path(call["folder"]).is_relative_to(finished_build.folder)
        if call["tool"] == "vivado":
            assert call["arguments"][:3] == ["-mode", "batch", "-source"]
    top = calls[-1]["script"]
    assert "set BOARD Pynq-Z1" in top
    assert "set FREQ_MHZ 125" in top
    assert str(vendor_tools / "dependencies" / "board_files") in top


@pytest.mark.finn
def test_with_vivado_bitfile_and_driver_are_packed(finished_build):
    assert finished_build.bitfile.read_text() == "stand-in"
    assert finished_build.fifos == "force_minimal_fifos"  # the stand-in cannot simulate
    for name in ("bitfile/finn-accel.bit", "bitfile/finn-accel.hwh", "driver/settings.json"):
        assert (finished_build.deploy / name).exists()
    assert (finished_build.deploy / "driver" / "divqat.json").exists()
    assert read_json(finished_build.folder / "vivado.json")["status"] == "bitfile"


@pytest.mark.finn
@pytest.mark.slow
def test_a_tool_that_fails_is_no_missing_tool(vendor_tools, mlp_onnx, tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN_FAILS", "make_project.tcl")
    with pytest.raises(BuildError, match="step_create_stitched_ip") as error:
        build_vivado(mlp_onnx, tmp_path / "build", VivadoSettings())
    assert error.value.exit_code == 1
    assert (tmp_path / "build" / "stitched_ip" / "make_project.tcl").exists()
    assert read_json(tmp_path / "build" / "vivado.json")["lacks"] == []


@pytest.mark.finn
def test_a_folder_of_the_user_is_not_replaced(mlp_onnx, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds something else than a FINN build"):
        build_vivado(mlp_onnx, tmp_path, VivadoSettings())
    assert (tmp_path / "thesis.tex").exists()


def programs(folder: Path, *names: str) -> str:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_what_lacks_is_looked_up(tmp_path):
    board, card = vivado_target("pynq-z1"), vivado_target("u250")
    bin_2023 = programs(tmp_path / "a", "vivado", "vitis_hls")
    bin_2025 = programs(tmp_path / "b", "vivado", "vitis-run", "v++")
    dependencies = tmp_path / "dependencies"
    (dependencies / "finn-hlslib").mkdir(parents=True)
    (dependencies / "board_files" / "pynq-z1").mkdir(parents=True)

    def missing(target, path, version, folder=dependencies, **more):
        environment = {"PATH": path, "XILINX_VIVADO": f"/opt/Vivado/{version}", **more}
        return lacking(target, [], folder, environment)

    assert missing(board, bin_2023, "2023.2") == []
    assert missing(board, bin_2025, "2025.1") == []
    assert missing(card, bin_2025, "2025.1") == []
    assert missing(board, "", "2023.2", FINN_TOOL_DIR_OVERRIDE=bin_2023) == []
    (hls,) = missing(board, bin_2023, "2025.1")
    assert hls.startswith("Vitis HLS, vitis-run (not in PATH)")
    (linker,) = missing(card, bin_2023, "2023.2")
    assert linker.startswith("v++")
    (settings,) = missing(board, bin_2023, "latest")
    assert "XILINX_VIVADO is '/opt/Vivado/latest', without a version" in settings
    library, files = missing(board, bin_2023, "2023.2", tmp_path / "none")
    assert "finn-hlslib" in library
    assert "board files of Pynq-Z1" in files
    (hls,) = lacking(
        board,
        ["Pool_hls_0"],
        dependencies,
        {"PATH": programs(tmp_path / "c", "vivado"), "XILINX_VIVADO": "/opt/Vivado/2024.2"},
    )
    assert hls.startswith("Vitis HLS, vitis_hls (not in PATH)")
    assert "Pool_hls_0" in hls


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"clock_ns": 0.0}, "clock_ns"),
        ({"target_fps": 0}, "target_fps"),
        ({"target_fps": None}, "target_fps or a folding_json"),
        ({"fifos": "deep"}, "FIFO sizing"),
        ({"target": "pynq-z11"}, "did you mean 'pynq-z1'"),
        ({"target": "ecp5-85f"}, "unknown board of the Vivado flow"),
    ],
)
def test_settings_out_of_range(setting, said):
    with pytest.raises(InputError, match=said):
        VivadoSettings(**setting)


@pytest.mark.finn
def test_boards_are_finns():
    from finn.util.basic import alveo_part_map, pynq_part_map

    parts = {"vivado_zynq": pynq_part_map, "vitis_alveo": alveo_part_map}
    boards = [one for one in TARGETS.values() if isinstance(one, VivadoTarget)]
    for board in boards:
        assert parts[board.shell][board.board] == board.part
        assert vivado_target(board.board) is board

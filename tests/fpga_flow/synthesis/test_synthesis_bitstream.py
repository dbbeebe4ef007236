"""A small design to a bitstream, with the real tools; what is in it equals the design."""

import dataclasses
import re
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import memory_core
import numpy as np
import pytest
import torch
from finn_networks import finn_worker
from read_back import read_back
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.models import quantize
from divqat_brevitas.models.resnet import ResidualArchitecture
from divqat_brevitas.training import calibrate
from fpga_flow import export_qonnx
from fpga_flow.compile import CompileSettings, compile_finn
from fpga_flow.compile.prediction import load_prediction
from fpga_flow.engines.netlist import NetlistEngine, compare_netlist
from fpga_flow.engines.rtl import RtlEngine
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.report.schema import HardwareRow, parse
from fpga_flow.rtl import generate_design
from fpga_flow.synthesis import BitstreamReport, NoBitstreamError, build_bitstream, hardware_rows
from fpga_flow.synthesis.tools import Deadline, run_tool
from fpga_flow.targets import Resources, open_target

pytestmark = pytest.mark.slow
DEVICE = open_target("ecp5-25f")


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    return memory_core.memory_design(tmp_path_factory.mktemp("core") / "design")


@pytest.fixture(scope="module")
def built(design, tmp_path_factory):
    return build_bitstream(design, DEVICE, tmp_path_factory.mktemp("bits") / "chip", dsp=True)


def test_the_report_says_what_the_bitstream_takes(built):
    assert built.bitstream.stat().st_size == built.bitstream_bytes > 10_000
    assert built.cells.bram >= 4
    assert built.cells.dsp == 1
    assert built.cells.lutram == 2
    assert built.comb >= built.cells.lut
    assert built.placed_ff == built.cells.ff
    assert built.utilisation["bram"] == built.cells.bram / DEVICE.capacity.bram
    assert built.fmax_mhz > 20
    layers = [{"name": layer.name} | dataclasses.asdict(layer.cells) for layer in built.layers]
    assert [row["name"] for row in layers] == ["layer_a", "layer_b", "(interface)"]
    for kind in ("lut", "ff", "bram", "lutram", "dsp"):
        assert sum(row[kind] for row in layers) == getattr(built.cells, kind)
    assert BitstreamReport.load(built.folder) == built
    assert not [p for p in built.folder.parent.iterdir() if p.name != built.folder.name]


def test_its_rows_are_those_of_results_json(built):
    rows = hardware_rows(built, "tiny", cycles_per_image=100)
    assert [row["stage"] for row in rows] == ["synthesis", "place_and_route", "bitstream"]
    for row in rows:
        parse(HardwareRow, row, "row")
    assert rows[2]["images_per_s"] == built.fmax_mhz * 1e4
    assert rows[0]["fmax_mhz"] is None


def test_the_netlist_gives_the_integers_of_the_rtl(design, built):
    images = memory_core.random_images(200, seed=1)
    row = compare_netlist(design, built.folder, images, idle=0.3, back_pressure=0.3)
    assert row == {
        "a": "rtl",
        "b": "netlist",
        "inputs": 200,
        "mismatches": 0,
        "unit": "accumulators",
    }


def test_a_changed_netlist_is_found_out(design, built, tmp_path):
    copied = tmp_path / "bits"
    copied.mkdir()
    for path in built.folder.iterdir():
        if path.is_file():
            (copied / path.name).write_bytes(path.read_bytes())
    text = (copied / "netlist.v").read_text()
    changed = re.sub(r"(INITVAL_\w+\(320'h)[0-9a-f]+", r"\g<1>0", text)
    assert changed != text
    (copied / "netlist.v").write_text(changed)
    images = memory_core.random_images(50, seed=2)
    assert compare_netlist(design, copied, images)["mismatches"] > 0


def test_the_netlist_of_another_design_is_refused(built, design, tmp_path):
    other = memory_core.memory_design(tmp_path / "other")
    (other.folder / "even.dat").write_text("0\n" * 1024)
    with pytest.raises(InputError, match="another design"):
        NetlistEngine(dataclasses.replace(other), built.folder)


def test_the_bitstream_reads_back(built):
    back = read_back(built)
    assert back.same_bits
    assert not back.differing
    assert back.compared > 1000
    config = built.folder / "design.config"
    text = config.read_text()
    table = next(line for line in text.splitlines() if line.startswith("word: SLICE"))
    config.write_text(text.replace(table, f"{table[:-1]}{1 - int(table[-1])}", 1))
    try:
        assert len(read_back(built).differing) in (1, 2)
    finally:
        config.write_text(text)


def test_a_design_too_large_says_what_and_where(design, tmp_path):
    small = dataclasses.replace(DEVICE, capacity=Resources(24_288, 24_288, bram=2, dsp=28))
    with pytest.raises(NoBitstreamError, match="doesn't fit ecp5-25f: it needs") as caught:
        build_bitstream(
            design, small, tmp_path / "bits", dsp=True, advice=lambda short: "Try PE 1."
        )
    error = caught.value
    assert error.exit_code == 1
    assert error.shortfall.over["bram"][1] == 2
    assert error.shortfall.largest == "layer_a"
    assert "block RAMs of 2" in str(error)
    assert "layer_a" in str(error)
    assert "Try PE 1." in str(error)
    assert [p.name for p in tmp_path.iterdir()] == ["bits-failed"]
    assert (tmp_path / "bits-failed" / "netlist.v").is_file()


def test_a_clock_out_of_reach_says_where_the_time_goes(design, tmp_path):
    with pytest.raises(NoBitstreamError, match="and 900 MHz were asked") as caught:
        build_bitstream(design, DEVICE, tmp_path / "bits", dsp=True, freq_mhz=900)
    assert 20 < caught.value.shortfall.fmax_mhz < 900
    assert "slowest path goes through" in str(caught.value)
    assert not (tmp_path / "bits").exists()


def test_rtl_of_the_core_depends_on_its_memories(design):
    images = memory_core.random_images(20, seed=5)
    with RtlEngine(design) as engine:
        found = engine.accumulators(images)["sum"]
    assert len(np.unique(found)) == 20


# A space splits, a quote opens, a semicolon ends, a dollar expands and a hash comments out.
NAME = "a b'\"é $x; #&"
_SOURCE = """
module squared (input clk, input [3:0] x, output reg [3:0] y);
  always @(posedge clk) y <= x * x + 3;
endmodule
"""


@pytest.fixture
def awkward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of that name; temporary files and compiled simulations go below it, too."""
    folder = tmp_path / NAME
    for name in ("tmp dir", "cache c"):
        (folder / name).mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(folder / "tmp dir"))
    monkeypatch.setenv("DIVQAT_CACHE", str(folder / "cache c"))
    monkeypatch.setattr(tempfile, "tempdir", None)  # it is looked up once
    yield folder
    assert not list((folder / "tmp dir").iterdir())


@pytest.mark.parametrize(
    "command", ["synth_ecp5", pytest.param("synth_xilinx", marks=pytest.mark.slow)]
)
def test_yosys_and_its_abc_work_in_any_folder(awkward: Path, command: str) -> None:
    (awkward / "squared.v").write_text(_SOURCE)
    commands = ["read_verilog squared.v", f"{command} -top squared", "write_json squared.json"]
    run_tool("yosys", commands, awkward, awkward / "log", Deadline(300))
    assert '"squared"' in (awkward / "squared.json").read_text()
    left = {path.name for path in awkward.iterdir()}
    assert left == {"squared.v", "squared.json", "log", "tmp dir", "cache c"}


@pytest.mark.slow
def test_from_the_design_to_the_bits_in_any_folder(awkward: Path) -> None:
    """slang, yosys, nextpnr, ecppack and ecpunpack, then Verilator and g++."""
    design = memory_core.memory_design(awkward / "the core" / "design")
    built = build_bitstream(design, open_target("ecp5-25f"), awkward / "the chip", dsp=True)
    assert built.bitstream.parent == awkward / "the chip"
    back = read_back(built)
    assert back.same_bits
    assert not back.differing
    images = memory_core.random_images(20, seed=1)
    row = compare_netlist(design, built.folder, images)
    assert (row["inputs"], row["mismatches"]) == (20, 0)


@pytest.mark.finn
def test_chosen_layers_take_the_predicted_multipliers_and_keep_their_integers(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(*ResidualArchitecture((1,), (4,), 8, "small").layers(1, 4))
    quantized = quantize(network, "w4a4", join_bit_width=6)
    images = torch.randint(0, 256, (32, 1, 8, 8)).byte()
    calibrate(quantized, images)
    floats = images.numpy().astype(np.float32) / 255
    path, target = tmp_path / "model.onnx", open_target("ecp5-12f")
    export_qonnx(quantized, path, floats)
    settings = CompileSettings(target=target.name, target_cycles=600, multipliers="auto")
    build = compile_finn(path, tmp_path / "build", settings, finn_worker())
    predicted = load_prediction(build)
    assert 0 < predicted.resources.dsp <= target.capacity.dsp
    design = generate_design(build, tmp_path / "design", worker=finn_worker())
    chosen = {node.name for node in design.nodes if node.multipliers}
    assert chosen == {name for name, one in predicted.folding.items() if one.dsp}
    made = build_bitstream(design, target, tmp_path / "chip")
    assert made.cells.dsp == predicted.resources.dsp
    cells = {layer.name: layer.cells.dsp for layer in made.layers}
    for node in design.nodes:
        expected = predicted.layers[node.name].dsp if node.name in chosen else 0
        assert cells.get(node.name, 0) == expected
    with NetlistEngine(design, made.folder) as engine:
        found = engine.predict(floats[:2])
    assert np.array_equal(found, IntegerEngine(path).predict(floats[:2]))


@pytest.mark.parametrize(("bits", "signed"), [(1, 0), (4, 0), (4, 1), (7, 1), (8, 0)])
def test_carry_cells_that_mask_are_proved_equal_to_the_rtl(tmp_path, bits, signed):
    """Yosys' SAT solver, over all inputs, with its own model of the cell."""
    source = files("fpga_flow.rtl").joinpath("sv", "masked_add.sv").read_text()
    (tmp_path / "masked_add.sv").write_text(source)
    read = f"--threads 1 -G W={bits} -G SIGNED={signed} --top masked_add masked_add.sv"
    commands = [
        f"read_slang -DDIVQAT_ECP5 {read}",
        "rename masked_add cells",
        "read_verilog -D NO_INCLUDES +/ecp5/cells_sim.v",
        "select -assert-min 1 cells/t:CCU2C",
        "hierarchy -top cells",
        "flatten",
        "design -stash cells",
        f"read_slang {read}",
        "design -copy-from cells -as cells cells",
        "miter -equiv -flatten masked_add cells both",
        "sat -verify -prove trigger 0 both",
    ]
    run_tool("slang", ["-q", "-p", "; ".join(commands)], tmp_path, tmp_path / "log", Deadline(120))

"""Designs: the same files every time, the integers of the integer engine, refusals by name."""

import json
from pathlib import Path

import finn_networks as networks
import hardware_networks
import numpy as np
import pytest
import torch
from brevitas.nn import QuantConv2d, QuantLinear, QuantReLU
from brevitas.quant import SignedBinaryWeightPerTensorConst
from qonnx_graphs import Graph
from torch import nn

from divqat_brevitas.errors import InputError
from fpga_flow.compile import CompileSettings, compile_finn
from fpga_flow.engines.rtl import RtlEngine
from fpga_flow.engines.simulation import Simulation, compiled
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.lowering import lower
from fpga_flow.rtl import DesignSettings, generate_design
from fpga_flow.rtl.refusals import rtl_findings

pytestmark = pytest.mark.finn


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    torch.manual_seed(0)
    onnx = networks.export(networks.cnn(3, 8), (1, 8, 8), folder / "cnn.onnx")
    settings = CompileSettings(target_fps=50_000)
    return compile_finn(onnx, folder / "build", settings, networks.finn_worker())


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow  # simulates generated hardware
def test_the_same_build_gives_the_same_files_without_paths(build, tmp_path):
    first = generate_design(build, tmp_path / "first", worker=networks.finn_worker())
    second = generate_design(build, tmp_path / "else" / "second")
    files = contents(first.folder)
    assert files == contents(second.folder)
    listed = {*first.sources, *first.data, "design.json"}
    assert set(files) == listed
    for name, content in files.items():
        assert str(tmp_path).encode() not in content, name
        assert str(Path(__file__).parents[3]).encode() not in content, name
    layers = [node.layer for node in first.nodes if node.layer]
    assert layers[:2] == list(build.activations)
    assert layers[2] == build.output_tensor
    ops = {node.op for node in first.nodes}
    assert ops >= {"StreamingFIFO", "MVAU", "Thresholding", "Pool"}


@pytest.mark.slow
def test_a_folding_that_mixes_up_windows_is_refused_with_both_layers(build, tmp_path):
    folding = json.loads(build.folding.read_text())
    folding["Pool_hls_0"]["PE"] = 4
    folding["ConvolutionInputGenerator_rtl_1"]["SIMD"] = 2
    (tmp_path / "folding.json").write_text(json.dumps(folding))
    onnx = build.folder.parent / "cnn.onnx"
    settings = CompileSettings(folding_json=tmp_path / "folding.json")
    other = compile_finn(onnx, tmp_path / "build", settings, networks.finn_worker())
    with pytest.raises(InputError, match=r"ConvolutionInputGenerator_rtl_1 must have SIMD=4"):
        generate_design(other, tmp_path / "design", worker=networks.finn_worker())
    assert not (tmp_path / "design").exists()
    assert not list(tmp_path.glob(".design*"))


@pytest.mark.slow
def test_one_bit_weights_and_activations_become_a_design(tmp_path):
    torch.manual_seed(0)
    onnx = networks.export(networks.binary_cnn(8), (1, 8, 8), tmp_path / "binary.onnx")
    assert rtl_findings(onnx) == []
    images = networks.images((1, 8, 8), 8)
    with RtlEngine(onnx) as engine:
        assert np.array_equal(engine.predict(images), lower(onnx).predict(images))


def test_a_network_with_hardware_has_no_findings(tmp_path):
    onnx = networks.export(networks.cnn(2, 8), (1, 8, 8), tmp_path / "cnn.onnx")
    assert rtl_findings(onnx) == []


@pytest.mark.slow  # simulates generated hardware; more of them in tests/random_networks
@pytest.mark.parametrize(
    ("style", "seed"), [("portable", 1), ("portable", 2), ("portable", 4), ("finn", 3)]
)
def test_random_layers_equal_the_integer_engine(tmp_path, style, seed):
    """Every layer's integers, under stalls on both ends."""
    case = hardware_networks.random_case(tmp_path, seed)
    design = hardware_networks.random_design(case, tmp_path, style)
    count = 24
    images = case.images(count)
    expected = case.integers(images)
    simulation = Simulation(design, compiled(design, taps=True))
    try:
        answer = simulation.run(
            design.beats(images), idle=30, back_pressure=40, seed=seed, observe=True
        )
    finally:
        simulation.close()
    assert answer.whole
    compared = set()
    for node, tap in zip(design.nodes, answer.taps, strict=True):
        if node.layer is not None:
            compared.add(node.layer)
            assert tap.beats == count * node.output.beats, node.name
            integers = node.output.unpack(tap.data).reshape(count, -1)
            assert np.array_equal(integers, expected[node.layer]), node.name
    assert len(compared) == 4  # three activations and the last accumulators
    assert np.array_equal(design.accumulators(answer.beats), integers)


@pytest.mark.slow
def test_a_thousand_images_under_stalls(build, tmp_path):
    onnx = build.folder.parent / "cnn.onnx"
    settings = DesignSettings(fifo_depths=2)
    design = generate_design(build, tmp_path / "design", settings, networks.finn_worker())
    images = networks.images((1, 8, 8), 1000)
    with RtlEngine(design, idle=0.3, back_pressure=0.3) as engine:
        (found,) = engine.accumulators(images).values()
    assert np.array_equal(found, IntegerEngine(onnx).accumulators(images)[design.output_layer])


@pytest.mark.slow
def test_one_bit_weights_of_wider_activations(tmp_path):
    torch.manual_seed(0)
    weights = {"weight_quant": SignedBinaryWeightPerTensorConst, "bias": False}
    network = nn.Sequential(
        networks.pixels(),
        QuantConv2d(1, 4, 3, **weights),
        nn.BatchNorm2d(4),
        QuantReLU(bit_width=2, return_quant_tensor=True),
        nn.Flatten(),
        QuantLinear(144, 5, **weights),
    )
    onnx = networks.export(network, (1, 8, 8), tmp_path / "network.onnx")
    build = compile_finn(
        onnx, tmp_path / "build", CompileSettings(target_fps=20_000), networks.finn_worker()
    )
    settings = DesignSettings(fifo_depths=2)
    design = generate_design(build, tmp_path / "design", settings, networks.finn_worker())
    images = networks.images((1, 8, 8), 50)
    with RtlEngine(design, threads=1) as engine:
        (found,) = engine.accumulators(images).values()
    assert np.array_equal(found, IntegerEngine(onnx).accumulators(images)[design.output_layer])


def test_branches_that_cross_are_named_before_finn_starts(tmp_path):
    g = Graph((2, 6, 6), seed=1)

    def layer(x, inputs):
        return g.quant(g.conv(x, inputs, 4, pads=[1] * 4), 0.4, 4, signed=False)

    def joined(*branches):
        return g.quant(g.node("Add", *branches), 0.4, 4, signed=False)

    x = layer(g.image(), 2)
    left, right = layer(x, 4), layer(x, 4)
    g.classifier(joined(layer(left, 4), joined(left, right))).save(str(tmp_path / "model.onnx"))
    (finding,) = rtl_findings(tmp_path / "model.onnx")
    assert "do not meet again in one sum" in finding.problem
    assert finding.level == "RTL"

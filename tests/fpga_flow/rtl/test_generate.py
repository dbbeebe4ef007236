"""Designs on disk: the same every time, without this machine's paths; refusals by name."""

import json
import sys
from pathlib import Path

import pytest
import torch
from brevitas.nn import QuantConv2d, QuantIdentity, QuantLinear, QuantReLU
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "compile"))
import finn_networks as networks

from divqat_brevitas.errors import InputError
from fpga_flow.compile import CompileSettings, compile_finn
from fpga_flow.rtl import DesignSettings, generate_design
from fpga_flow.rtl.legality import rtl_findings


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    torch.manual_seed(0)
    onnx = networks.export(networks.cnn(3, 8), (1, 8, 8), folder / "cnn.onnx")
    return compile_finn(onnx, folder / "build", CompileSettings(target_fps=50_000))


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.finn
def test_the_same_build_gives_the_same_files_without_paths(build, tmp_path):
    first = generate_design(build, tmp_path / "first")
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


@pytest.mark.finn
@pytest.mark.slow
def test_a_folding_that_mixes_up_windows_is_refused_with_both_layers(build, tmp_path):
    folding = json.loads(build.folding.read_text())
    folding["Pool_hls_0"]["PE"] = 4
    folding["ConvolutionInputGenerator_rtl_1"]["SIMD"] = 2
    (tmp_path / "folding.json").write_text(json.dumps(folding))
    onnx = build.folder.parent / "cnn.onnx"
    settings = CompileSettings(folding_json=tmp_path / "folding.json")
    other = compile_finn(onnx, tmp_path / "build", settings)
    with pytest.raises(InputError, match=r"ConvolutionInputGenerator_rtl_1 must have SIMD=4"):
        generate_design(other, tmp_path / "design")
    assert not (tmp_path / "design").exists()
    assert not list(tmp_path.glob(".design*"))


@pytest.mark.finn
@pytest.mark.slow
def test_one_bit_activations_are_refused(tmp_path):
    torch.manual_seed(0)
    onnx = networks.export(networks.binary_cnn(8), (1, 8, 8), tmp_path / "binary.onnx")
    build = compile_finn(onnx, tmp_path / "build", CompileSettings(target_fps=None))
    with pytest.raises(InputError, match=r"no RTL for the layer MVAU.*one-bit activations"):
        generate_design(build, tmp_path / "design", DesignSettings(fifo_depths=2))


def test_findings_name_the_module_of_one_bit_activations(tmp_path):
    torch.manual_seed(0)
    onnx = networks.export(networks.binary_cnn(8), (1, 8, 8), tmp_path / "binary.onnx")
    findings = rtl_findings(onnx)
    assert [finding.op for finding in findings] == ["BipolarQuant", "BipolarQuant"]
    assert findings[0].node.startswith("/3/")
    assert "at least 2" in findings[0].remedy


def test_a_network_with_hardware_has_no_findings(tmp_path):
    onnx = networks.export(networks.cnn(2, 8), (1, 8, 8), tmp_path / "cnn.onnx")
    assert rtl_findings(onnx) == []


@pytest.mark.parametrize(("signed", "found"), [(True, ["MaxPool"]), (False, [])])
def test_a_padded_pool_of_signed_codes_is_found(tmp_path, signed, found):
    activation = QuantIdentity if signed else QuantReLU
    network = nn.Sequential(
        networks.pixels(),
        QuantConv2d(1, 2, 3, bias=False),
        activation(bit_width=3, return_quant_tensor=True),
        nn.MaxPool2d(2, padding=1),
        nn.Flatten(),
        QuantLinear(32, 3, bias=False),
    )
    onnx = networks.export(network, (1, 8, 8), tmp_path / "pool.onnx")
    assert [finding.op for finding in rtl_findings(onnx)] == found

"""Designs on disk: the same every time, without this machine's paths; refusals by name."""

import json
from pathlib import Path

import finn_networks as networks
import numpy as np
import pytest
import torch
from brevitas.nn import QuantLinear
from torch import nn

from divqat_brevitas.errors import InputError
from fpga_flow.compile import CompileSettings, compile_finn
from fpga_flow.engines.rtl import RtlEngine
from fpga_flow.lowering import lower
from fpga_flow.rtl import generate_design
from fpga_flow.rtl.refusals import rtl_findings


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    torch.manual_seed(0)
    onnx = networks.export(networks.cnn(3, 8), (1, 8, 8), folder / "cnn.onnx")
    return compile_finn(onnx, folder / "build", CompileSettings(target_fps=50_000))


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow  # simulates generated hardware
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
def test_one_bit_weights_and_activations_become_a_design(tmp_path):
    torch.manual_seed(0)
    onnx = networks.export(networks.binary_cnn(8), (1, 8, 8), tmp_path / "binary.onnx")
    assert rtl_findings(onnx) == []
    images = networks.images((1, 8, 8), 8)
    with RtlEngine(onnx) as engine:
        assert np.array_equal(engine.predict(images), lower(onnx).predict(images))


@pytest.mark.finn
def test_a_depthwise_convolution_is_refused_before_finn_starts(tmp_path, monkeypatch):
    network = nn.Sequential(
        networks.pixels(),
        *networks.block(2, 2, 4, groups=2),
        nn.Flatten(),
        QuantLinear(128, 3, bias=False),
    )
    onnx = networks.export(network, (2, 8, 8), tmp_path / "depthwise.onnx")
    (finding,) = rtl_findings(onnx)
    assert (finding.op, finding.layer, finding.level) == ("Conv", "1", "RTL")
    monkeypatch.setattr("fpga_flow.compile.compile_finn", None)
    with pytest.raises(InputError, match=r"layer '1', Conv node .*Use groups=1"):
        RtlEngine(onnx)


def test_a_network_with_hardware_has_no_findings(tmp_path):
    onnx = networks.export(networks.cnn(2, 8), (1, 8, 8), tmp_path / "cnn.onnx")
    assert rtl_findings(onnx) == []

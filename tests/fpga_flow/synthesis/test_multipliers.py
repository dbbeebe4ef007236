"""A residual network to a bitstream: products in multipliers, as many as predicted, all exact."""

import numpy as np
import pytest
import torch
from torch import nn

from divqat_brevitas.models import quantize
from divqat_brevitas.models.resnet import ResidualArchitecture
from divqat_brevitas.training import calibrate
from fpga_flow import export_qonnx
from fpga_flow.compile import CompileSettings, compile_finn
from fpga_flow.compile.prediction import load_prediction
from fpga_flow.engines.netlist import NetlistEngine
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.rtl import generate_design
from fpga_flow.synthesis import build_bitstream
from fpga_flow.targets import open_target

pytestmark = [pytest.mark.finn, pytest.mark.slow]  # a FINN build, synthesis, place and route


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
    build = compile_finn(path, tmp_path / "build", settings)
    predicted = load_prediction(build)
    assert 0 < predicted.resources.dsp <= target.capacity.dsp
    design = generate_design(build, tmp_path / "design")
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

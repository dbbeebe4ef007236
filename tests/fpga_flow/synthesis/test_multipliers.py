"""Products in the device's multipliers: as many as predicted, and the same integers."""

import finn_networks as networks
import numpy as np
import pytest
import torch

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
    path = networks.export(networks.cnn(4, 8), (1, 8, 8), tmp_path / "model.onnx")
    settings = CompileSettings(target="ecp5-12f", target_cycles=300, multipliers="auto")
    build = compile_finn(path, tmp_path / "build", settings)
    predicted = load_prediction(build)
    assert 0 < predicted.resources.dsp <= open_target("ecp5-12f").capacity.dsp
    design = generate_design(build, tmp_path / "design")
    chosen = {node.name for node in design.nodes if node.multipliers}
    assert chosen == {name for name, one in predicted.folding.items() if one.dsp}
    made = build_bitstream(design, open_target("ecp5-12f"), tmp_path / "chip")
    assert made.cells.dsp == predicted.resources.dsp
    cells = {layer.name: layer.cells.dsp for layer in made.layers}
    for node in design.nodes:
        assert cells.get(node.name, 0) == (
            predicted.layers[node.name].dsp if node.name in chosen else 0
        )
    images = networks.images((1, 8, 8), 2)
    with NetlistEngine(design, made.folder) as engine:
        assert np.array_equal(engine.predict(images), IntegerEngine(path).predict(images))

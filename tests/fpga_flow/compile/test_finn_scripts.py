"""Build scripts and YAML as FINN users have them, unchanged, on models of ours.

Written in the style of FINN's published examples: one script a network, a folding file beside it,
custom steps in a module of their own. They run to the first step that calls a tool of Vivado's,
which is not installed here.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from brevitas_examples.bnn_pynq.models import model_with_cfg
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.registry import getCustomOp

from divqat_brevitas import quant, swap_quantizers
from fpga_flow import export_qonnx

pytestmark = pytest.mark.finn

ROOT = Path(__file__).parents[3]

BUILD = """\
import os
import shutil

import finn.builder.build_dataflow as build
import finn.builder.build_dataflow_config as build_cfg

models = ["{model}"]
zynq_platforms = ["Pynq-Z1"]


def platform_to_shell(platform):
    if platform in zynq_platforms:
        return build_cfg.ShellFlowType.VIVADO_ZYNQ
    raise Exception("unknown platform")


os.makedirs("release", exist_ok=True)
for platform_name in zynq_platforms:
    for model_name in models:
        cfg = build_cfg.DataflowBuildConfig(
            output_dir="output_%s_%s" % (model_name, platform_name),
            folding_config_file="folding_config/%s_folding_config.json" % model_name,
            synth_clk_period_ns=10.0,
            board=platform_name,
            shell_flow_type=platform_to_shell(platform_name),
            generate_outputs=[build_cfg.DataflowOutputType.BITFILE],
            save_intermediate_models=True,
        )
        build.build_dataflow_cfg("models/%s.onnx" % model_name, cfg)
        bitfile = cfg.output_dir + "/bitfile/finn-accel.bit"
        if os.path.isfile(bitfile):
            shutil.copy(bitfile, "release")
"""

# After their own steps the users name ours, imported or by a dotted path.
STEPS = """\
import finn.builder.build_dataflow as build
import finn.builder.build_dataflow_config as build_cfg
from custom_steps import step_count_layers

from fpga_flow.compile.checks import step_record_reference
from fpga_flow.compile.steps import step_integer_network

cfg = build_cfg.DataflowBuildConfig(
    output_dir="output",
    folding_config_file="folding_config.json",
    synth_clk_period_ns=10.0,
    board="ZCU104",
    shell_flow_type=build_cfg.ShellFlowType.VIVADO_ZYNQ,
    standalone_thresholds=True,
    auto_fifo_depths=True,
    auto_fifo_strategy={fifos!r},
    generate_outputs=[
        build_cfg.DataflowOutputType.ESTIMATE_REPORTS,
        build_cfg.DataflowOutputType.STITCHED_IP,
    ],
    save_intermediate_models=True,
    steps=[
        step_record_reference,
        step_integer_network,
        "step_qonnx_to_finn",
        "step_tidy_up",
        "step_streamline",
        "step_convert_to_hw",
        "step_create_dataflow_partition",
        step_count_layers,
        "fpga_flow.compile.steps.step_prefer_rtl",
        "step_specialize_layers",
        "step_target_fps_parallelization",
        "step_apply_folding_config",
        "step_minimize_bit_width",
        "fpga_flow.compile.checks.step_check_exact",
        "step_generate_estimate_reports",
        "step_hw_codegen",
        "step_hw_ipgen",
        "step_set_fifo_depths",
        "fpga_flow.compile.checks.step_check_exact",
        "step_create_stitched_ip",
    ],
)
build.build_dataflow_cfg("model.onnx", cfg)
"""
CUSTOM_STEPS = """\
def step_count_layers(model, cfg):
    with open(cfg.output_dir + "/layers.txt", "w") as file:
        file.write(str(len(model.get_nodes_by_op_type("MVAU"))))
    return model
"""


def run(arguments: list[str], folder: Path) -> str:
    """``python -m fpga_flow.compile.run_script``; what it printed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "FINN_", "XILINX"))}
    (folder / "home").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "fpga_flow.compile.run_script", *arguments],
        cwd=folder,
        env=kept
        | {
            "HOME": str(folder / "home"),
            "FINN_BUILD_DIR": str(folder / "home"),
            "NUM_DEFAULT_WORKERS": "1",
            "PYTHONPATH": str(ROOT),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + f"\nexit code {done.returncode}"


@pytest.fixture(scope="module")
def tfc(tmp_path_factory) -> Path:
    """A network of brevitas_examples with our quantizers, exported by us."""
    torch.manual_seed(0)
    network, _ = model_with_cfg("TFC_2W2A", pretrained=False)
    model = swap_quantizers(
        network, quant.Int2WeightPerTensorFloatDivQAT, quant.Uint2ActPerTensorFloatDivQAT
    )
    pixels = np.random.default_rng(0).integers(0, 256, (8, 1, 28, 28), dtype=np.uint8)
    x = pixels.astype(np.float32) / np.float32(255)
    model.train()(torch.from_numpy(x))
    path = tmp_path_factory.mktemp("tfc") / "tfc.onnx"
    assert export_qonnx(model.eval(), path, x).parity.mismatches == 0
    return path


FOLDING = {
    "Defaults": {},
    "Thresholding_rtl_0": {"PE": 49},
    "MVAU_hls_0": {"PE": 16, "SIMD": 49, "ram_style": "block"},
    "MVAU_hls_1": {"PE": 8, "SIMD": 8, "ram_style": "auto"},
    "MVAU_hls_2": {"PE": 8, "SIMD": 8, "ram_style": "auto"},
    "MVAU_hls_3": {"PE": 10, "SIMD": 8, "ram_style": "distributed"},
}


@pytest.mark.slow  # builds with FINN
def test_a_build_script_of_the_examples_runs_to_vivados_doorstep(tfc, tmp_path):
    model = "tfc_2w2a"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{model}.onnx").write_bytes(tfc.read_bytes())
    (tmp_path / "folding_config").mkdir()
    (tmp_path / "folding_config" / f"{model}_folding_config.json").write_text(json.dumps(FOLDING))
    (tmp_path / "build.py").write_text(BUILD.format(model=model))
    printed = run(["build.py"], tmp_path)
    assert printed.endswith("exit code 0")  # the script goes on where FINN fails, as theirs do
    assert "first step that calls one of Vivado's tools" in printed
    output = tmp_path / f"output_{model}_Pynq-Z1"
    assert "Could not find a version number" in (output / "build_dataflow.log").read_text()
    # Its last step before Vitis compiles the layers; Vivado's own were not run.
    models = {path.stem for path in (output / "intermediate_models").glob("step_*.onnx")}
    assert "step_assign_ddr_weight_offsets" in models
    assert "step_generate_hardware" not in models
    folded = ModelWrapper(str(output / "intermediate_models" / "step_apply_folding_config.onnx"))
    settings = {k: v for k, v in FOLDING.items() if k != "Defaults"}
    nodes = {node.name: getCustomOp(node) for node in folded.graph.node}
    assert settings.keys() <= nodes.keys()
    for layer, attributes in settings.items():
        for attribute, value in attributes.items():
            assert nodes[layer].get_nodeattr(attribute) == value, (layer, attribute)
    assert list((tmp_path / "release").iterdir()) == []


@pytest.mark.parametrize(
    ("fifos", "stopped"),
    [
        ("force_minimal_fifos", "step_create_stitched_ip"),
        # FINN's default sizes FIFOs in Vivado's simulator.
        ("distributed_sim", "step_set_fifo_depths"),
    ],
)
def test_our_steps_between_theirs_and_fifos(tfc, fifos, stopped, tmp_path):
    (tmp_path / "model.onnx").write_bytes(tfc.read_bytes())
    (tmp_path / "custom_steps.py").write_text(CUSTOM_STEPS)
    (tmp_path / "folding_config.json").write_text('{"Defaults": {}, "MVAU_rtl_0": {"PE": 4}}')
    (tmp_path / "build.py").write_text(STEPS.format(fifos=fifos))
    run(["build.py"], tmp_path)
    output = tmp_path / "output"
    log = (output / "build_dataflow.log").read_text()
    assert (output / "layers.txt").read_text() == "4"
    assert re.findall(r"Running step: (\w+)", log)[-1] == stopped
    checks = 2 if fifos == "force_minimal_fifos" else 1
    assert log.count("step_check_exact: 16 images, 3 activations: equal") == checks
    assert "vivado not found in PATH" in log
    assert (output / "report" / "estimate_network_performance.json").exists()
    hardware = ModelWrapper(str(output / "intermediate_models" / "step_hw_ipgen.onnx"))
    assert {node.op_type.split("_")[-1] for node in hardware.graph.node} == {"rtl"}


@pytest.mark.slow  # builds with FINN
def test_a_yaml_names_our_steps(tfc, tmp_path):
    fields = {
        "output_dir": "output",
        "synth_clk_period_ns": 10.0,
        "board": "Pynq-Z1",
        "shell_flow_type": "vivado_zynq",
        "target_fps": 10_000,
        "generate_outputs": ["estimate_reports"],
        "steps": [
            "fpga_flow.compile.checks.step_record_reference",
            "fpga_flow.compile.steps.step_integer_network",
            "step_qonnx_to_finn",
            "step_tidy_up",
            "step_streamline",
            "fpga_flow.compile.checks.step_check_exact",
            "step_convert_to_hw",
            "step_create_dataflow_partition",
            "step_specialize_layers",
            "step_target_fps_parallelization",
            "step_apply_folding_config",
            "step_generate_estimate_reports",
        ],
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(fields))
    printed = run(["mine.yaml", str(tfc)], tmp_path)
    assert printed.endswith("exit code 0"), printed
    assert "3 activations: equal" in (tmp_path / "output" / "build_dataflow.log").read_text()
    fields["steps"].insert(2, "fpga_flow.compile.steps.step_no_such")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(fields))
    printed = run(["mine.yaml", str(tfc)], tmp_path)
    assert printed.endswith("exit code 1")
    assert "step_no_such" in printed


@pytest.mark.parametrize("arguments", [[], ["nowhere.py"], ["mine.yaml"]])
def test_usage(arguments, tmp_path, capsys, monkeypatch):
    from fpga_flow.compile.run_script import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("{}")
    assert main(arguments) == 2
    assert "usage:" in capsys.readouterr().err

"""Our steps, checks and files in the hands of a FINN user, through FINN's own entry."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from brevitas.export import export_qonnx
from brevitas_examples.bnn_pynq.models import model_with_cfg
from qonnx.core.modelwrapper import ModelWrapper

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json
from fpga_flow.compile import worker_process as process
from fpga_flow.compile.checks import check_inputs, step_check_exact, step_record_reference
from fpga_flow.compile.configuration import VivadoSettings
from fpga_flow.compile.finn_yaml import finn_config, write_finn_config
from fpga_flow.compile.folding_file import FOLDING_ATTRIBUTES
from fpga_flow.lowering import lower

pytestmark = pytest.mark.finn

# What `finn build` does behind its check of Vivado's simulator.
BUILD = """
import sys
from pathlib import Path
from fpga_flow.compile.finn_import import import_finn
import_finn()
from finn.builder.build_dataflow import build_dataflow_cfg
from finn.builder.build_dataflow_config import DataflowBuildConfig
sys.path.insert(0, ".")
cfg = DataflowBuildConfig.construct_from(Path(sys.argv[1]))
sys.exit(-build_dataflow_cfg(sys.argv[2], cfg))
"""
ROOT = Path(__file__).parents[3]


def run_python(code: str, *arguments: object, folder: Path) -> subprocess.CompletedProcess:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "FINN_"))}
    (folder / "home").mkdir(exist_ok=True)
    environment = kept | {
        "HOME": str(folder / "home"),
        "FINN_BUILD_DIR": str(folder / "home"),
        "NUM_DEFAULT_WORKERS": "1",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


# The folding file says what FINN takes by default; the estimates annotate.
DEFAULTS = {*FOLDING_ATTRIBUTES, "cycles_estimate"} - {"PE", "SIMD"}


def canonical(path: Path) -> list:
    """A model without names FINN draws at random, metadata and annotations."""
    model = ModelWrapper(str(path))
    names: dict[str, str] = {}

    def known(name: str) -> str:
        return names.setdefault(name, f"tensor {len(names)}")

    nodes = []
    for node in model.graph.node:
        attributes = {
            a.name: a.SerializeToString(deterministic=True)
            for a in node.attribute
            if a.name not in DEFAULTS
        }
        values = []
        for name in (*node.input, *node.output):
            initializer = model.get_initializer(name)
            values.append(None if initializer is None else initializer.tobytes())
            values.append((known(name), str(model.get_tensor_datatype(name))))
        nodes.append((node.name, node.op_type, attributes, values))
    return nodes


@pytest.fixture(scope="module")
def users_build(cnn_onnx, tmp_path_factory):
    """``divqat finn-config``, then FINN itself."""
    folder = tmp_path_factory.mktemp("user")
    settings = VivadoSettings(target_fps=10_000, clock_ns=5.0)
    files = write_finn_config(cnn_onnx, folder, settings, estimates_only=True)
    assert {path.name for path in folder.iterdir()} == {
        "finn.yaml",
        "folding.json",
        "specialize.json",
    }
    done = run_python(BUILD, files.yaml.name, cnn_onnx, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "output_cnn_pynq-z1"


@pytest.mark.parametrize(
    "step", ["step_streamline", "step_create_dataflow_partition", "step_generate_estimate_reports"]
)
def test_finn_builds_from_the_yaml_what_we_build(users_build, cnn_build, step):
    theirs = canonical(users_build / "intermediate_models" / f"{step}.onnx")
    assert theirs == canonical(cnn_build.steps[step])
    assert len(theirs) > 5


def test_finn_estimates_from_the_yaml_what_we_estimate(users_build, cnn_build):
    report = read_json(users_build / "report" / "estimate_network_performance.json")
    assert report["max_cycles"] == cnn_build.estimates.cycles_per_image
    resources = read_json(users_build / "report" / "estimate_layer_resources.json")
    assert resources["total"]["LUT"] == cnn_build.estimates.lut


def test_the_checks_ran(users_build):
    log = (users_build / "build_dataflow.log").read_text()
    assert log.count("step_check_exact: 16 images, 2 activations: equal") == 3


def test_yaml_without_finn_here(cnn_onnx, tmp_path, monkeypatch):
    monkeypatch.setattr("fpga_flow.compile.finn_yaml.finn_installed", lambda: False)
    files = write_finn_config(cnn_onnx, tmp_path / "new", VivadoSettings(target="KV260_SOM"))
    assert (files.folding, files.specialize) == (None, None)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["finn.yaml"]
    fields = yaml.safe_load(files.yaml.read_text())
    assert (fields["board"], fields["target_fps"]) == ("KV260_SOM", 1000)
    assert "folding_config_file" not in fields
    assert fields["generate_outputs"][-1] == "deployment_package"
    assert process.finn_installed()


@pytest.mark.slow
def test_yaml_with_a_folding_that_does_not_fit(cnn_onnx, tmp_path):
    (tmp_path / "mine.json").write_text('{"MVAU_rtl_1": {"PE": 5}}')
    with pytest.raises(InputError, match=r"mine\.json.*PE=5"):
        write_finn_config(
            cnn_onnx, tmp_path / "out", VivadoSettings(folding_json=tmp_path / "mine.json")
        )
    assert not (tmp_path / "out").exists()


# A user's own step between ours: it spoils a channel of the second activation.
SPOILED = """
def step_spoil(model, cfg):
    node = model.get_nodes_by_op_type("Thresholding")[1]
    thresholds = model.get_initializer(node.input[1]).copy()
    thresholds[0] = model.get_tensor_datatype(node.input[0]).min()  # always passed
    model.set_initializer(node.input[1], thresholds)
    return model
"""


def write_yaml(folder: Path, onnx: Path, **changes) -> Path:
    fields = yaml.safe_load(finn_config(onnx, VivadoSettings(), estimates_only=True)) | changes
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


@pytest.mark.slow  # builds with FINN
def test_a_step_that_changes_the_network_fails_the_build_and_the_layer_is_named(cnn_onnx, tmp_path):
    (tmp_path / "mine.py").write_text(SPOILED)
    check = "fpga_flow.compile.checks.step_check_exact"
    fields = yaml.safe_load(finn_config(cnn_onnx, VivadoSettings(), estimates_only=True))
    after = fields["inject_steps_after"]
    after["step_convert_to_hw"] = [check, "mine.step_spoil"]
    del after["step_create_dataflow_partition"]  # found by the next check, two steps later
    path = write_yaml(tmp_path, cnn_onnx, inject_steps_after=after, output_dir="out")
    done = run_python(BUILD, path.name, cnn_onnx, folder=tmp_path)
    assert done.returncode == 1
    log = (tmp_path / "out" / "build_dataflow.log").read_text()
    (said,) = [line for line in log.splitlines() if "FINN ERROR" in line]
    second = [layer for layer in lower(cnn_onnx).layers if layer.op == "Threshold"][1]
    assert f"from layer {second.source!r} (tensor {second.output!r}) on" in said
    assert "integers differ" in said
    assert "Traceback" not in log
    assert log.count("2 activations: equal") == 2


def test_a_check_without_a_reference_says_so(mlp_onnx, tmp_path):
    cfg = SimpleNamespace(output_dir=str(tmp_path))
    with pytest.raises(Exception, match="step_record_reference as the first step"):
        step_check_exact(ModelWrapper(str(mlp_onnx)), cfg)
    model = step_record_reference(ModelWrapper(str(mlp_onnx)), cfg)
    (tmp_path / "divqat_reference.onnx").write_bytes(b"another network")
    with pytest.raises(Exception, match="no reference of this network"):
        step_check_exact(model, cfg)


def test_check_inputs_are_pixels(mlp_onnx):
    network = lower(mlp_onnx)
    images = check_inputs(network)
    assert images.shape == (16, *network.input_shape)
    assert (images == check_inputs(network)).all()
    assert (images[0] == 0).all()
    assert (images[1] == 1).all()
    assert ((images * 255).round() / 255 == images).all()


# Written as FINN's published examples are: stock steps by their defaults, a folding file of the
# user's, one board after the other; ours are the injected lists, some by names of older lists.
EXAMPLE = """
from fpga_flow.compile.finn_import import import_finn
import_finn()
import sys
import finn.builder.build_dataflow as build
import finn.builder.build_dataflow_config as build_cfg

OURS = "fpga_flow.compile."
model_name, model_file, *platforms = sys.argv[1:]
for platform_name in platforms:
    cfg = build_cfg.DataflowBuildConfig(
        output_dir="output_%s_%s" % (model_name, platform_name),
        target_fps=10000,
        synth_clk_period_ns=10.0,
        board=platform_name,
        shell_flow_type=build_cfg.ShellFlowType.VIVADO_ZYNQ,
        generate_outputs=[build_cfg.DataflowOutputType.ESTIMATE_REPORTS],
        steps=build_cfg.hw_codegen_dataflow_steps,
        save_intermediate_models=True,
        standalone_thresholds=True,
        inject_steps_before={
            "step_qonnx_to_finn": [
                OURS + "checks.step_record_reference", OURS + "steps.step_integer_input",
            ],
        },
        inject_steps_after={
            "step_qonnx_to_finn": [OURS + "steps.step_ties_to_even"],
            "step_streamline": [
                OURS + "steps.step_exact_thresholds", OURS + "steps.step_integer_output",
            ],
            "step_minimize_bit_width": [
                OURS + "steps.step_two_bit_weights", OURS + "checks.step_check_exact",
            ],
        },
    )
    if build.build_dataflow_cfg(model_file, cfg):
        sys.exit(1)
"""


def bnn_pynq(name: str, shape: tuple[int, ...], path: Path) -> Path:
    torch.manual_seed(0)
    network, _ = model_with_cfg(name, pretrained=False)
    network.train()
    for _ in range(2):
        network(torch.rand(8, *shape))
    network.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_qonnx(network, args=torch.rand(1, *shape), export_path=str(path), dynamo=False)
    return path


@pytest.mark.slow  # builds with FINN
@pytest.mark.parametrize(
    ("name", "shape", "activations", "boards"),
    [
        ("TFC_2W2A", (1, 28, 28), 3, ("Pynq-Z1", "ZCU104")),
        ("CNV_2W2A", (3, 32, 32), 8, ("ZCU104",)),
    ],
)
def test_finns_own_networks_in_a_script_of_their_own(name, shape, activations, boards, tmp_path):
    model = bnn_pynq(name, shape, tmp_path / "model.onnx")
    done = run_python(EXAMPLE, name, model, *boards, folder=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for board in boards:
        log = (tmp_path / f"output_{name}_{board}" / "build_dataflow.log").read_text()
        assert f"step_check_exact: 16 images, {activations} activations: equal" in log

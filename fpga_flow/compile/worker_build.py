"""The build itself, inside the worker process: FINN's steps and ours, one after the other."""

import importlib.metadata
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.registry import getCustomOp

from divqat_brevitas.errors import DivQATError, unknown_name
from divqat_brevitas.files import read_json
from fpga_flow.compile import steps
from fpga_flow.compile.folding_file import FOLDING_ATTRIBUTES, check_folding, read_folding
from fpga_flow.compile.obstacles import entry
from fpga_flow.compile.solving import Request, fold, write_prediction
from fpga_flow.lowering import Network, clean, lower
from fpga_flow.lowering.input_step import InputStep
from fpga_flow.lowering.ir import Conv, MatMul, Threshold

PARENT = "dataflow_parent"
STEP_MARK = "--- "  # begins the log line that names a step
Step = Callable[[ModelWrapper, Any], ModelWrapper]
STEPS: tuple[str | Step, ...] = (
    steps.step_integer_network,
    "step_qonnx_to_finn",
    "step_tidy_up",
    "step_streamline",
    "step_convert_to_hw",
    "step_minimize_bit_width_initial",
    "step_create_dataflow_partition",
    steps.step_prefer_rtl,
    "step_specialize_layers",
    "step_target_fps_parallelization",
    "step_apply_folding_config",
    "step_minimize_bit_width",
    steps.step_two_bit_weights,
    "step_transpose_decomposition",
    "step_generate_estimate_reports",
    "step_hw_codegen",
)
STEP_NAMES = tuple(s if isinstance(s, str) else s.__name__ for s in STEPS)


class StepFailedError(Exception):
    """A step raised.

    Attributes:
        step: its name.
        cause: what it raised.
        unmappable: whether FINN says that it has no hardware for the network.
    """

    def __init__(self, step: str, cause: Exception) -> None:
        from finn.util.exception import FINNUserError

        super().__init__(f"{type(cause).__name__}: {cause}")
        self.step = step
        self.cause = cause
        mapping = STEP_NAMES[: STEP_NAMES.index("step_specialize_layers") + 1]
        # FINN's QONNX conversion raises ValueError for quantizers it does not take.
        self.unmappable = step in mapping and isinstance(cause, FINNUserError | ValueError)


def build(job: dict[str, Any]) -> dict[str, Any]:
    """Run all steps of ``job`` in its folder.

    Args:
        job: ``onnx``, ``folder`` (everything is written there) and ``settings``.

    Returns:
        what build.json says of the network and the steps.

    Raises:
        InputError: board or folding are refused.
        StepFailedError: a step failed.
    """
    import finn.builder.build_dataflow as builder
    from finn.util.config import extract_model_config_to_json

    # FINN draws tensor names; the same network must give the same files.
    random.seed(0)
    np.random.seed(0)
    folder, folding = Path(job["folder"]), job["settings"]["folding_json"]
    models = folder / "intermediate_models"
    models.mkdir(parents=True)
    cfg = _config(folder, job["settings"])
    model = clean(Path(job["onnx"]))
    report = _network(lower(model))
    seconds: dict[str, float] = {}
    for step in builder.resolve_build_steps(cfg):
        name = step.__name__
        print(f"{STEP_MARK}{name}", flush=True)
        if name == "step_apply_folding_config" and folding:
            check_folding(model, read_folding(Path(folding)), folding)
        start = time.monotonic()
        try:
            model = step(model, cfg)
        except DivQATError:
            raise
        except Exception as e:
            raise StepFailedError(name, e) from e
        seconds[name] = round(time.monotonic() - start, 3)
        if name == "step_apply_folding_config":
            extract_model_config_to_json(model, folder / "folding.json", FOLDING_ATTRIBUTES)
        if name == "step_transpose_decomposition":
            write_prediction(model, folder)
        if name == "step_hw_codegen":
            collect_rtl(model, folder / "rtl")
        model.save(str(models / f"{name}.onnx"))
    report |= {
        "seconds": seconds,
        "estimates": _estimates(model, folder / "report"),
        "versions": {p: importlib.metadata.version(p) for p in ("finn-plus", "qonnx", "onnx")},
    }
    _tidy(folder, models)
    return report


def _config(folder: Path, settings: dict[str, Any]) -> Any:
    """FINN's build configuration."""
    import finn.builder.build_dataflow_config as config

    folding = settings["folding_json"]
    wanted = list(STEPS)
    if settings["target"] is not None:
        for step in _of_our_modules():
            wanted[STEP_NAMES.index(step.__name__)] = step
    if not settings["rtl_below_4_bits"]:
        wanted.remove(steps.step_prefer_rtl)
    solved = settings["target"] is not None and not folding
    if solved:
        wanted[wanted.index("step_target_fps_parallelization")] = _solver(settings)
    return config.DataflowBuildConfig(
        output_dir=str(folder),
        synth_clk_period_ns=settings["clock_ns"],
        target_fps=None if folding or solved else settings["target_fps"],
        folding_config_file=Path(folding) if folding else None,
        standalone_thresholds=settings["standalone_thresholds"],
        generate_outputs=[config.DataflowOutputType.ESTIMATE_REPORTS],
        steps=wanted,
        save_intermediate_models=True,
        **_device(settings),
    )


def _of_our_modules() -> tuple[Step, ...]:
    """Steps for targets whose modules are ours, which take codes of one bit."""
    from finn.builder import build_dataflow_steps as stock
    from qonnx.transformation.general import GiveUniqueNodeNames

    def step_integer_network(model: ModelWrapper, cfg: Any) -> ModelWrapper:
        return steps.integer_network(model, bits=True)

    def step_specialize_layers(model: ModelWrapper, cfg: Any) -> ModelWrapper:
        """As FINN's, and RTL for one-bit codes: its HLS writes no code for them."""
        model = stock.step_specialize_layers(model, cfg)
        for node in model.graph.node:
            if node.op_type not in ("MVAU_hls", "VVAU_hls"):
                continue
            if getCustomOp(node).get_nodeattr("inputDataType") == "BINARY":
                node.op_type = node.op_type.replace("_hls", "_rtl")
                node.domain = node.domain.replace(".hls", ".rtl")
        return model.transform(GiveUniqueNodeNames())

    return step_integer_network, step_specialize_layers


def _solver(settings: dict[str, Any]) -> Step:
    """Our folding step, for what the settings ask for."""

    def step_solve_folding(model: ModelWrapper, cfg: Any) -> ModelWrapper:
        return fold(model, Request.of(settings))

    return step_solve_folding


def _device(settings: dict[str, Any]) -> dict[str, Any]:
    from finn.util.basic import part_map

    if settings["part"] is not None:
        return {"fpga_part": settings["part"]}
    if settings["board"] not in part_map:
        raise unknown_name("board", settings["board"], part_map)
    return {"board": settings["board"]}


def activation_names(network: Network) -> list[str]:
    """Tensors of the activation quantizers behind the image's, in network order."""
    return [layer.output for layer in network.layers if isinstance(layer, Threshold)]


def _network(network: Network) -> dict[str, Any]:
    """What build.json says of the network, by the names the lowering uses too."""
    output = network.output
    weighted = [layer.name for layer in network.layers if isinstance(layer, Conv | MatMul)]
    return {
        "activations": activation_names(network),
        "input_step": InputStep.of(network, entry(network).shape).record(),
        "input_shape": list(network.input_shape),
        "output_layer": weighted[-1] if weighted else network.layer(output.tensor).name,
        "output_tensor": output.tensor,
        "output_scale": output.scale.tolist(),
        "output_bias": output.bias.tolist(),
    }


def _estimates(model: ModelWrapper, reports: Path) -> dict[str, Any]:
    """FINN's own estimates as one row a layer, in network order, and the totals."""
    cycles = read_json(reports / "estimate_layer_cycles.json")
    resources = read_json(reports / "estimate_layer_resources.json")
    network = read_json(reports / "estimate_network_performance.json")
    layers = []
    for node in model.graph.node:
        attributes = {a.name: a.i for a in node.attribute if a.name in ("PE", "SIMD")}
        layers.append(
            {
                "name": node.name,
                "cycles": cycles[node.name],
                **_amounts(resources[node.name]),
                "pe": attributes.get("PE"),
                "simd": attributes.get("SIMD"),
            }
        )
    return {
        "layers": layers,
        **_amounts(resources["total"]),
        "cycles_per_image": network["max_cycles"],
        "slowest_layer": network["max_cycles_node_name"],
        "latency_cycles": network["critical_path_cycles"],
        "images_per_s": network["estimated_throughput_fps"],
    }


def _amounts(row: dict[str, Any]) -> dict[str, Any]:
    names = {"lut": "LUT", "bram": "BRAM_18K", "uram": "URAM", "dsp": "DSP"}
    return {ours: row.get(theirs, 0) for ours, theirs in names.items()}


def _tidy(folder: Path, models: Path) -> None:
    """Keep what is read later, free of this machine's paths."""
    parent = ModelWrapper(str(models / f"{PARENT}.onnx"))
    for node in parent.get_nodes_by_op_type("StreamingDataflowPartition"):
        getCustomOp(node).set_nodeattr("model", "step_create_dataflow_partition.onnx")
    parent.save(str(models / f"{PARENT}.onnx"))
    shutil.rmtree(models / "supported_op_partitions")
    models.rename(folder / "models")
    (folder / "template_specialize_layers_config.json").unlink(missing_ok=True)


_TEXT = {".v", ".sv", ".vh", ".svh", ".dat", ".tcl", ".cpp", ".hpp", ".h", ".xdc"}


def collect_rtl(model: ModelWrapper, target: Path) -> None:
    """Move the generated code of every node to ``target/<node>/``.

    FINN writes into folders with random names and bakes their absolute paths into the code
    (memory initialisation files). They become ``./file``, relative to the node's folder, as
    simulators and synthesis tools read them. The model's attributes become ``rtl/<node>``.

    Args:
        model: the model after step_hw_codegen; its attributes are changed in place.
        target: the folder to fill; created.
    """
    target.mkdir(parents=True, exist_ok=True)
    for node in model.graph.node:
        operator = getCustomOp(node)
        generated = Path(operator.get_nodeattr("code_gen_dir_ipgen"))
        folder = target / node.name
        shutil.copytree(generated, folder)
        for file in sorted(folder.rglob("*")):
            if file.suffix in _TEXT:
                text = file.read_text(encoding="utf-8")
                file.write_text(text.replace(str(generated), "."), encoding="utf-8")
        for attribute in node.attribute:
            if attribute.s.startswith(str(generated).encode()):
                relative = f"{target.name}/{node.name}"
                attribute.s = attribute.s.replace(str(generated).encode(), relative.encode())

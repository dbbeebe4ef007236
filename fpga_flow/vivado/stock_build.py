"""The build by stock FINN for AMD's tools, inside the worker process."""

import importlib.metadata
import os
import random
import shutil
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.registry import getCustomOp

from fpga_flow.compile.configuration import TOOL_STEPS
from fpga_flow.compile.steps import step_host_values
from fpga_flow.compile.worker_build import STEP_MARK, StepFailedError
from fpga_flow.lowering import load_model


def build_for_vivado(job: dict[str, Any]) -> dict[str, Any]:
    """Run FINN's steps, ours among them, until they end or a vendor tool is missing.

    The job has ``onnx``, ``config`` (FINN's YAML), ``folder`` (everything is written there) and
    ``simulator``: whether Vivado's simulator can size FIFOs.

    Returns:
        ``seconds`` by step, ``stopped`` (step and FINN's message, or None), ``not_run`` (steps),
        ``hls`` (layers that are HLS code), ``fifos``, ``dependencies`` (FINN's folder of
        downloads) and ``versions``. A step that fails and needs no vendor tool is a
        StepFailedError.
    """
    import finn.builder.build_dataflow as builder
    import finn.builder.build_dataflow_config as config
    from finn.util.settings import get_settings

    # FINN draws tensor names; the same network must give the same files.
    random.seed(0)
    np.random.seed(0)
    folder = Path(job["folder"])
    cfg = config.DataflowBuildConfig.construct_from(Path(job["config"]))
    cfg.output_dir = str(folder)
    if not job["simulator"]:
        cfg.auto_fifo_strategy = config.AutoFIFOSizingMethod.FORCE_MINIMAL_FIFOS
    # FINN's own command sets these; its Tcl scripts read them.
    os.environ["FINN_RTLLIB"] = str(get_settings().finn_rtllib)
    os.environ["FINN_CUSTOM_HLS"] = str(get_settings().finn_custom_hls)
    os.environ.setdefault("XILINX_LOCAL_USER_DATA", "no")
    models = cfg.get_intermediate_models_directory()
    model = load_model(job["onnx"])
    resolved = builder.resolve_build_steps(cfg)
    seconds: dict[str, float] = {}
    stopped = None
    for step in resolved:
        name = step.__name__
        print(f"{STEP_MARK}{name}", flush=True)
        start = time.monotonic()
        try:
            model = step(model, cfg)
        except Exception as e:
            if name not in TOOL_STEPS:
                raise StepFailedError(name, e) from e
            stopped = {"step": name, "message": f"{type(e).__name__}: {e}"}
            break
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - start, 3)
        model.save(str(models / f"{name}.onnx"))
    hls = [node.name for node in model.graph.node if node.op_type.endswith("_hls")]
    if stopped is not None:
        _keep_stitching(Path(get_settings().finn_build_dir), folder / "stitched_ip")
        _make_driver(model, cfg)
    done = [*seconds]
    return {
        "seconds": seconds,
        "stopped": stopped,
        "not_run": [s.__name__ for s in resolved if s.__name__ not in done] if stopped else [],
        "hls": hls,
        "fifos": cfg.auto_fifo_strategy.value,
        "dependencies": str(get_settings().finn_deps),
        "versions": {p: importlib.metadata.version(p) for p in ("finn-plus", "qonnx", "onnx")},
    }


def _keep_stitching(build_dir: Path, target: Path) -> None:
    """Copy the Vivado project's script, which FINN writes before it calls Vivado."""
    projects = sorted(build_dir.glob("vivado_stitch_proj_*"), key=lambda p: p.stat().st_mtime)
    if projects:
        shutil.copytree(projects[-1], target, dirs_exist_ok=True)


def _make_driver(model: ModelWrapper, cfg: Any) -> None:
    """Write the PYNQ driver's settings, as FINN does behind the bitfile; needs no Vivado."""
    import finn.builder.build_dataflow_config as config
    from finn.builder.build_dataflow_steps import step_make_driver
    from finn.transformation.fpgadataflow.create_dataflow_partition import CreateDataflowPartition
    from finn.transformation.fpgadataflow.floorplan import Floorplan
    from finn.transformation.fpgadataflow.insert_dwc import InsertDWC
    from finn.transformation.fpgadataflow.insert_iodma import InsertIODMA
    from finn.transformation.fpgadataflow.specialize_layers import SpecializeLayers
    from finn.util.basic import pynq_native_port_width
    from qonnx.transformation.general import GiveReadableTensorNames, GiveUniqueNodeNames
    from qonnx.transformation.infer_data_layouts import InferDataLayouts

    if cfg.shell_flow_type != config.ShellFlowType.VIVADO_ZYNQ:
        return
    print(f"{STEP_MARK}step_make_driver (without a bitfile)", flush=True)
    partitions = str(cfg.get_intermediate_models_directory() / "kernel_partitions")
    shell = deepcopy(model).transform(InferDataLayouts())
    for transformation in (
        InsertIODMA(pynq_native_port_width[cfg.board]),
        InsertDWC(),
        SpecializeLayers(cfg._resolve_fpga_part()),
        Floorplan(),
        CreateDataflowPartition(partition_model_dir=partitions),
    ):
        shell = shell.transform(transformation)
        shell = shell.transform(GiveUniqueNodeNames()).transform(GiveReadableTensorNames())
    for name, node in (("idma0", shell.graph.node[0]), ("odma0", shell.graph.node[-1])):
        getCustomOp(node).set_nodeattr("instance_name", name)  # as in FINN's Vivado project
    step_host_values(step_make_driver(shell, cfg), cfg)

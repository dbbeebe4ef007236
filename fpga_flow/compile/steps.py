"""Our FINN build steps: integers from the first pixel to the last accumulator.

Each is an importable top-level function ``(model, cfg) -> model``, so a FINN YAML can name it::

    inject_steps_before:
      step_qonnx_to_finn: [fpga_flow.compile.steps.step_integer_network]
      step_specialize_layers: [fpga_flow.compile.steps.step_prefer_rtl]
    inject_steps_after:
      step_minimize_bit_width: [fpga_flow.compile.steps.step_two_bit_weights]
      step_make_driver: [fpga_flow.compile.steps.step_host_values]

``cfg`` is FINN's DataflowBuildConfig; only the last needs it. `divqat finn-config` writes such a
YAML file; ``fpga_flow.compile.checks`` has steps that check a build.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.registry import getCustomOp

from divqat_brevitas.files import write_json
from fpga_flow.compile.integer_graph import integer_graph
from fpga_flow.compile.legality import findings_of
from fpga_flow.compile.obstacles import entry
from fpga_flow.lowering import clean, lower
from fpga_flow.lowering.input_step import InputStep

INPUT_STEP = "divqat.input_step"
OUTPUT_AFFINE = "divqat.output_affine"


def step_integer_network(model: ModelWrapper, cfg: Any) -> ModelWrapper:
    """Replace a QONNX network by its integers: what is left to FINN is hardware.

    The graph takes the integer codes of the image, has integer weights and the exact integer
    thresholds of the lowering, and ends in the last integer accumulators. FINN's own conversion
    moves scales and signs through the network in float32, which is too coarse beside large
    integers, rounds ties half up, and builds a float thresholding layer for the image. What the
    host computes is kept in the model's metadata: ``divqat.input_step`` (image to codes) and
    ``divqat.output_affine`` (``logits = accumulators * scale + bias``). To be run before
    step_qonnx_to_finn, which then has nothing to do.

    Args:
        model: a QONNX model, cleaned or not.
        cfg: FINN's build configuration (not used).

    Returns:
        the integer graph, with the metadata of ``model``.

    Raises:
        FINNUserError: FINN has no hardware for the network; the layer and a remedy are named.
    """
    return integer_network(model)


def integer_network(model: ModelWrapper, bits: bool = False) -> ModelWrapper:
    """As ``step_integer_network``.

    Args:
        model: a QONNX model, cleaned or not.
        bits: whether codes may be of one bit, which FINN's own matrix units do not take.
    """
    cleaned = clean(model)
    if findings := findings_of(cleaned):
        raise user_error(f"FINN has no hardware for this network. {findings[0]}")
    network = lower(cleaned)
    graph = integer_graph(network, bits)
    for item in model.graph.metadata_props:
        graph.set_metadata_prop(item.key, item.value)
    step = InputStep.of(network, entry(network).shape)
    graph.set_metadata_prop(INPUT_STEP, json.dumps(step.record()))
    output = network.output
    affine = {"scale": output.scale.tolist(), "bias": output.bias.tolist()}
    graph.set_metadata_prop(OUTPUT_AFFINE, json.dumps(affine))
    return graph


def _done_already(name: str) -> Callable[[ModelWrapper, Any], ModelWrapper]:
    """A step of older YAML files whose work step_integer_network does too."""

    def step(model: ModelWrapper, cfg: Any) -> ModelWrapper:
        if model.get_metadata_prop(INPUT_STEP) is None:
            raise user_error(
                f"{name} has nothing to work on: inject fpga_flow.compile.steps."
                "step_integer_network before step_qonnx_to_finn, which does all of its work"
            )
        return model

    step.__name__ = step.__qualname__ = name
    step.__doc__ = "Return the model of step_integer_network as it is: nothing is left to do."
    return step


step_integer_input = step_integer_network
step_ties_to_even, step_room_for_signs, step_exact_thresholds, step_integer_output = (
    _done_already(name)
    for name in (
        "step_ties_to_even",
        "step_room_for_signs",
        "step_exact_thresholds",
        "step_integer_output",
    )
)


def step_prefer_rtl(model: ModelWrapper, cfg: Any) -> ModelWrapper:
    """Ask for the RTL matrix-vector unit in every layer; FINN keeps HLS where RTL cannot be.

    By default FINN takes HLS when weights or activations have less than 4 bits. To be run
    before step_specialize_layers.
    """
    for node in model.get_nodes_by_op_type("MVAU"):
        getCustomOp(node).set_nodeattr("preferred_impl_style", "rtl")
    return model


def step_two_bit_weights(model: ModelWrapper, cfg: Any) -> ModelWrapper:
    """Declare weights two bits wide that FINN's minimization of bit widths made one bit.

    It has no hardware for weights of 0 and 1, and takes 0 and -1 for -1 and +1. To be run after
    step_minimize_bit_width.
    """
    for node in model.graph.node:
        if node.op_type.startswith(("MVAU", "VVAU")):
            operator = getCustomOp(node)
            declared = operator.get_nodeattr("weightDataType")
            zeros = (model.get_initializer(node.input[1]) == 0).any()
            if declared == "BINARY" or (declared == "BIPOLAR" and zeros):
                operator.set_nodeattr("weightDataType", "INT2")
                model.set_tensor_datatype(node.input[1], DataType["INT2"])
    return model


def step_host_values(model: ModelWrapper, cfg: Any) -> ModelWrapper:
    """Write ``divqat.json`` beside FINN's driver: what the host has to compute.

    ``input_step``: the image's codes, which the accelerator takes channels last (see
    ``fpga_flow.lowering.input_step``; null: it takes the image's floats). ``output_scale`` and
    ``output_bias``: ``logits = accumulators * output_scale + output_bias``. To be run after
    step_make_driver.
    """
    step = model.get_metadata_prop(INPUT_STEP)
    affine = json.loads(model.get_metadata_prop(OUTPUT_AFFINE) or '{"scale": [1.0], "bias": [0.0]}')
    values = {
        "input_step": None if step is None else json.loads(step),
        "output_scale": affine["scale"],
        "output_bias": affine["bias"],
    }
    write_json(Path(cfg.get_driver_directory()) / "divqat.json", values)
    return model


def user_error(message: str) -> Exception:
    """FINN's own class, so that a build ends in one line instead of a traceback."""
    from finn.util.exception import FINNUserError

    error: Exception = FINNUserError(message)
    return error

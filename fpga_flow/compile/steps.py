"""Our FINN build steps: integers from the first pixel to the last accumulator.

Each is an importable top-level function ``(model, cfg) -> model``, so a FINN YAML can name it::

    inject_steps_before:
      step_qonnx_to_finn: [fpga_flow.compile.steps.step_integer_input]
    inject_steps_after:
      step_qonnx_to_finn: [fpga_flow.compile.steps.step_ties_to_even]
      step_streamline:
        - fpga_flow.compile.steps.step_exact_thresholds
        - fpga_flow.compile.steps.step_integer_output
      step_create_dataflow_partition: [fpga_flow.compile.steps.step_prefer_rtl]
      step_make_driver: [fpga_flow.compile.steps.step_host_values]

``cfg`` is FINN's DataflowBuildConfig; all but the last do not need it. `divqat finn-config` writes
such a YAML file; ``fpga_flow.compile.checks`` has steps that check a build.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.registry import getCustomOp
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.util.basic import remove_by_name

from divqat_brevitas.files import write_json
from fpga_flow.lowering import (
    HostStep,
    LoweringError,
    Network,
    clean,
    input_range_of,
    lower,
)
from fpga_flow.lowering.ir import Threshold

INPUT_SCALE = "divqat.input_scale"
INPUT_STEP = "divqat.input_step"
OUTPUT_AFFINE = "divqat.output_affine"
THRESHOLDS = "divqat.thresholds"
_ARITHMETIC = ("Add", "Div", "Mul", "Sub")
_REORDERING = ("Flatten", "Identity", "Reshape", "Transpose")


def step_integer_input(model: ModelWrapper, cfg: Any) -> ModelWrapper:
    """Let the graph take integer codes instead of floats.

    A Quant on the (flattened) graph input with one scale, such as 1/255 on pixels/255, becomes
    ``Mul(scale)`` on a UINT8 (or smaller, or signed) graph input. Streamlining moves the Mul
    away, and the hardware takes raw pixels; stock FINN would build a float thresholding layer
    with 255 steps. Constants that scale the input before the Quant leave the graph: the host
    computes them. Anything else on the input is left alone. The scale is kept in the model's
    metadata (``divqat.input_scale``), what else the host does (``divqat.input_step``, JSON), and
    the exact integer thresholds of the lowered network for step_exact_thresholds. Quantized biases
    become constants, which FINN can move.

    Args:
        model: a QONNX model, cleaned or not.
        cfg: FINN's build configuration (not used).

    Returns:
        the cleaned model.
    """
    model = clean(model)
    _fold_constant_biases(model)
    network = _record_thresholds(model)
    quant, preamble = _first_quantizer(model)
    if quant is None or (preamble and network is None):
        return model
    scale, zero_point, bits = (model.get_initializer(name) for name in quant.input[1:4])
    if scale is None or bits is None or np.any(zero_point != 0) or scale.size != 1:
        return model
    if bits.item() > 8:
        return model
    codes = getCustomOp(quant).get_integer_datatype(model)
    for node in preamble:
        _bypass(model, node)
    host = HostStep(declared=input_range_of(model)) if network is None else network.host
    index = list(model.graph.node).index(quant)
    mul = helper.make_node("Mul", list(quant.input[:2]), list(quant.output), name=quant.name)
    model.graph.node.remove(quant)
    model.graph.node.insert(index, mul)
    model.set_tensor_datatype(model.graph.input[0].name, codes)
    model.set_metadata_prop(INPUT_SCALE, repr(scale.item()))
    model.set_metadata_prop(INPUT_STEP, json.dumps(host.record()))
    return model.transform(InferDataTypes())


def step_ties_to_even(model: ModelWrapper, cfg: Any) -> ModelWrapper:
    """Let thresholds decide exact ties as Quant does: half to even.

    FINN turns ``Quant`` into ``count(x >= t)``, which rounds half up. Where the code above a
    threshold is odd, an exact tie must fall to the even code below: the threshold moves to the
    next float32, so that ``x >= t`` means ``x > tie``. To be run after step_qonnx_to_finn.
    """
    for node in model.get_nodes_by_op_type("MultiThreshold"):
        thresholds = model.get_initializer(node.input[1])
        above_is_odd = _code_above_is_odd(model, node)
        if above_is_odd is not None:
            moved = np.nextafter(thresholds, np.float32(np.inf))
            model.set_initializer(node.input[1], np.where(above_is_odd, moved, thresholds))
    return model


def step_room_for_signs(model: ModelWrapper, cfg: Any) -> ModelWrapper:
    """Let weights of full range change their sign.

    FINN turns a negative batch norm factor into a change of the sign of a channel's weights, but
    leaves it as a layer of its own, which then has no hardware, where a weight is -2^(n-1) and
    its opposite does not fit n bits. Such weights are declared one bit wider here; FINN's later
    steps narrow what needs no more than n. To be run after step_qonnx_to_finn.
    """
    for node in model.graph.node:
        if node.op_type in ("Conv", "MatMul"):
            weights = model.get_initializer(node.input[1])
            declared = model.get_tensor_datatype(node.input[1])
            full = weights is not None and declared.name == f"INT{declared.bitwidth()}"
            if full and weights.min() == declared.min():
                model.set_tensor_datatype(node.input[1], DataType[f"INT{declared.bitwidth() + 1}"])
    return model


def step_exact_thresholds(model: ModelWrapper, cfg: Any) -> ModelWrapper:
    """Replace the thresholds on integers by the lowering's exact ones.

    FINN folds scales and biases into thresholds in float32; next to a large integer that is too
    coarse, and a threshold can land on the wrong side. The exact integers were recorded by
    step_integer_input. They replace FINN's where both mean the same: as many activations, each
    threshold within one accumulator step or float32 noise, and no popcounts. Otherwise FINN's
    stay; those below what an unsigned count can be, which FINN stumbles over, become its minimum.
    To be run after step_streamline.
    """
    recorded = json.loads(model.get_metadata_prop(THRESHOLDS) or "[]")
    nodes = [
        node
        for node in model.get_nodes_by_op_type("MultiThreshold")
        if model.get_tensor_datatype(node.input[0]).is_integer()
    ]
    if len(nodes) != len(recorded):
        recorded = [None] * len(nodes)
    for node, entry in zip(nodes, recorded, strict=True):
        counted = model.get_tensor_datatype(node.input[0])
        thresholds = np.maximum(model.get_initializer(node.input[1]), counted.min())
        if entry is not None and _agree(thresholds, entry, counted):
            thresholds = np.array(entry["thresholds"])
        model.set_initializer(node.input[1], thresholds.astype(np.float32))
    remove_by_name(model.graph.metadata_props, THRESHOLDS, "key")
    return model


def step_integer_output(model: ModelWrapper, cfg: Any) -> ModelWrapper:
    """Let the graph end in its last integer accumulators.

    The trailing constant Mul and Add nodes go; ``logits = accumulators * scale + bias`` is kept
    in the model's metadata (``divqat.output_affine``) and applied on the host. Without them the
    accelerator needs no floating-point layer. To be run after step_streamline; a graph that
    does not end in integers is left alone.
    """
    scale: Any = np.ones(1)
    bias: Any = np.zeros(1)
    tail: list[NodeProto] = []
    tensor = model.graph.output[0].name
    while (node := model.find_producer(tensor)) is not None and node.op_type in ("Mul", "Add"):
        constant = model.get_initializer(node.input[1])
        if constant is None:
            break
        value = constant.reshape(-1).astype(np.float64)
        if node.op_type == "Mul":
            scale = scale * value
        else:
            bias = bias + scale * value
        tail.append(node)
        tensor = node.input[0]
    if not model.get_tensor_datatype(tensor).is_integer():
        return model
    model.set_metadata_prop(
        OUTPUT_AFFINE, json.dumps({"scale": scale.tolist(), "bias": bias.tolist()})
    )
    if tail:
        for node in tail:
            model.graph.node.remove(node)
        output = model.graph.output[0].name
        model.find_producer(tensor).output[0] = output
        model.set_tensor_datatype(output, model.get_tensor_datatype(tensor))
    return model


def step_prefer_rtl(model: ModelWrapper, cfg: Any) -> ModelWrapper:
    """Ask for the RTL matrix-vector unit in every layer; FINN keeps HLS where RTL cannot be.

    By default FINN takes HLS when weights or activations have less than 4 bits. To be run
    before step_specialize_layers.
    """
    for node in model.get_nodes_by_op_type("MVAU"):
        getCustomOp(node).set_nodeattr("preferred_impl_style", "rtl")
    return model


def step_host_values(model: ModelWrapper, cfg: Any) -> ModelWrapper:
    """Write ``divqat.json`` beside FINN's driver: what the host has to compute.

    ``input_scale``: the accelerator takes ``round(image / input_scale)``, channels last, or the
    image's floats (null). ``input_step``: the operators that come before that scale, the range of
    the image, and whether the smallest code is left out. ``output_scale`` and ``output_bias``:
    ``logits = accumulators * output_scale + output_bias``. To be run after step_make_driver.
    """
    scale = model.get_metadata_prop(INPUT_SCALE)
    affine = json.loads(model.get_metadata_prop(OUTPUT_AFFINE) or '{"scale": [1.0], "bias": [0.0]}')
    values = {
        "input_scale": None if scale is None else float(scale),
        "input_step": json.loads(model.get_metadata_prop(INPUT_STEP) or "null"),
        "output_scale": affine["scale"],
        "output_bias": affine["bias"],
    }
    write_json(Path(cfg.get_driver_directory()) / "divqat.json", values)
    return model


def threshold_offset(model: ModelWrapper, node: NodeProto) -> float | None:
    """Lowest code of a MultiThreshold: its bias, or that of the Add behind it.

    None where the steps are not codes one apart (bipolar activations).
    """
    operator = getCustomOp(node)
    if operator.get_nodeattr("out_scale") != 1.0 or operator.get_nodeattr("out_dtype") in (
        "BIPOLAR",
        "BINARY",
    ):
        return None
    offset = float(operator.get_nodeattr("out_bias"))
    add = code_add(model, node)
    if add is not None:
        offset += float(model.get_initializer(add.input[1]).item())
    return offset


def code_add(model: ModelWrapper, node: NodeProto) -> NodeProto | None:
    """The Add of a whole number behind a MultiThreshold, as signed activations have it."""
    consumers = model.find_consumers(node.output[0]) or []
    if len(consumers) != 1 or consumers[0].op_type != "Add":
        return None
    constant = model.get_initializer(consumers[0].input[1])
    if constant is None or constant.size != 1 or constant.item() != round(constant.item()):
        return None
    return consumers[0]


def _first_quantizer(model: ModelWrapper) -> tuple[NodeProto | None, list[NodeProto]]:
    """The Quant that reads the graph input, and the constant arithmetic before it.

    Else there is at most reordering in between.
    """
    tensor = model.graph.input[0].name
    preamble: list[NodeProto] = []
    while len(readers := model.find_consumers(tensor) or []) == 1:
        (node,) = readers
        if node.op_type == "Quant" and node.input[0] == tensor:
            return node, preamble
        if node.op_type in _ARITHMETIC:
            preamble.append(node)
        elif node.op_type not in _REORDERING:
            break
        tensor = node.output[0]
    return None, []


def _bypass(model: ModelWrapper, node: NodeProto) -> None:
    """Take a node with one constant operand out of the graph."""
    moving = next(name for name in node.input if model.get_initializer(name) is None)
    for reader in model.find_consumers(node.output[0]) or []:
        names = [moving if name == node.output[0] else name for name in reader.input]
        reader.input[:] = names
    model.graph.node.remove(node)


def _record_thresholds(model: ModelWrapper) -> Network | None:
    """Keep the lowered network's thresholds in the metadata, one entry an activation.

    The network is returned.

    An entry has ``thresholds`` (C, T) and what the accumulators reach, ``first`` and ``last``
    (C,): thresholds beyond are clamped to ``first`` (always passed) and ``last`` + 1 (never).
    """
    try:
        network = lower(model)
    except LoweringError:
        return None  # a network that FINN may take and we do not
    entries = []
    for layer in network.layers:
        if isinstance(layer, Threshold):
            before = network.layer(layer.inputs[0])
            up = layer.signs > 0
            entries.append(
                {
                    "thresholds": layer.thresholds.tolist(),
                    "first": np.where(up, before.low, -before.high).tolist(),
                    "last": np.where(up, before.high, -before.low).tolist(),
                }
            )
    model.set_metadata_prop(THRESHOLDS, json.dumps(entries))
    return network


def _agree(theirs: Any, entry: dict[str, Any], counted: Any) -> bool:
    """Whether FINN's float thresholds (C or 1, T) mean the steps of a recorded entry.

    ``counted`` is the type of what they compare: a popcount (unsigned) is no accumulator.
    """
    exact = np.array(entry["thresholds"])
    if counted.min() > min(entry["first"]):
        return False
    if theirs.shape[-1] != exact.shape[-1] or len(theirs) not in (1, len(exact)):
        return False
    first, last = (np.array(entry[name])[:, None] for name in ("first", "last"))
    reached = np.clip(np.ceil(theirs), first, last + 1)
    return bool(np.all(np.abs(reached - exact) <= np.maximum(1.0, np.abs(exact) * 2.0**-18)))


def _fold_constant_biases(model: ModelWrapper) -> None:
    """Quantized constants that are added, not multiplied, become plain constants."""
    for node in list(model.get_nodes_by_op_type("Quant")):
        readers = model.find_consumers(node.output[0]) or []
        added = all(
            reader.op_type == "Add" or list(reader.input).index(node.output[0]) == 2
            for reader in readers
        )
        if not readers or not added or model.get_initializer(node.input[0]) is None:
            continue
        context = {name: model.get_initializer(name) for name in node.input}
        getCustomOp(node).execute_node(context, model.graph)
        model.graph.node.remove(node)
        model.set_initializer(node.output[0], context[node.output[0]])


def _code_above_is_odd(model: ModelWrapper, node: NodeProto) -> Any:
    """Bool (thresholds,): whether the code reached at each threshold is odd; None: no codes."""
    offset = threshold_offset(model, node)
    if offset is None:
        return None
    steps = model.get_tensor_shape(node.input[1])[-1]
    return (np.arange(1, steps + 1) + round(offset)) % 2 == 1

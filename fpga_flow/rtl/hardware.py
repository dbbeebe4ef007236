"""Inside FINN's worker process: a folded model as generated code, one folder a layer.

The build's model is taken after folding. Layers FINN would make HLS code of are brought to RTL:
matrix-vector units get signed weights of the bits they need, max pools become ours. A matrix of
weights -1 and +1 that takes bits and has thresholds behind it counts equal bits (in the portable
style): ``count = sum(w * b) + (weights of -1)``, and the thresholds are raised by as much. Where
two layers' streams differ in width, a converter goes between.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper

from divqat_brevitas.errors import InputError
from fpga_flow.compile.finn_layers import (
    passed,
    port_of,
    sources_of,
    takes_multipliers,
    weight_bits,
)
from fpga_flow.compile.worker_execution import OPERATORS, code_tensor
from fpga_flow.folding import shapes
from fpga_flow.lowering.ir import bits_for
from fpga_flow.rtl.windows import fused, ours, searches_in_turn, window_facts
from fpga_flow.untrusted.onnx_file import read_step

# A part with DSP48E2 blocks: FINN's rules for the older ones exclude weights of full range,
# which only its own matrix-vector unit cannot take.
_PORTABLE_PART = "xczu3eg-sbva484-1-e"
# FINN writes the code of a depthwise unit for Versal only; ours takes its place there.
_VERSAL_PART = "xcvc1902-vsva2197-2MP-e-S"
_GENERATED = ("ConvolutionInputGenerator", "FMPadding", *shapes.PRODUCTS, "Thresholding")
_JOINS = (shapes.JOIN, shapes.CONCAT)
_BRANCHES = (shapes.FORK, *_JOINS, shapes.SUM)
_OURS = ("Pool", "StreamingDataWidthConverter", *_BRANCHES)
_RTL_DOMAIN = "finn.custom_op.fpgadataflow.rtl"
_CONVERTER = "StreamingDataWidthConverter"


def generate(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Generate the code of every layer.

    Args:
        job: ``model`` (a build's model after folding), ``device`` (board or part), ``clock_ns``,
            ``style``, ``folder`` (gets ``<layer>/`` with the files FINN writes).

    Returns:
        one record a layer, each behind those it reads: ``name``, ``op``, ``sources`` (the ports it
        reads, see ``folding.branches``), ``tensor`` (the QONNX tensor that its codes are of, or
        None), ``input`` and ``output`` streams, ``cycles`` (FINN's estimate), ``pe``, ``simd``,
        ``files``, and what our modules need (``weights``, ``pool``, ``others``: further inputs,
        ``copies``, ``pixels`` or ``shift``; ``multipliers``: whether products are to take the
        device's; ``logic``: whether ours are to be made without any).

    Raises:
        InputError: a layer has no RTL.
    """
    from finn.transformation.fpgadataflow.insert_dwc import InsertDWC

    random.seed(0)
    np.random.seed(0)
    model = ModelWrapper(read_step(Path(job["model"]), OPERATORS))
    portable = job["style"] == "portable"
    part = _PORTABLE_PART if portable else _part(job["device"])
    chosen = {node.name for node in model.graph.node if takes_multipliers(node)}
    for node in model.graph.node:
        _bring_to_rtl(model, node, portable)
    model = model.transform(InsertDWC())
    records: list[dict[str, Any]] = []
    for node in _ordered(model):
        folder = Path(job["folder"]) / node.name
        folder.mkdir()
        record = _layer(model, node, folder, part, job["clock_ns"], portable, records)
        taken = node.name in chosen
        records.append(record | {"multipliers": taken, "logic": portable and not taken})
    return fused(records) if portable else records


def _part(device: str) -> str:
    from finn.util.basic import part_map

    return str(part_map.get(device, device))


def _operator(node: NodeProto) -> str:
    return str(node.op_type.removesuffix("_rtl").removesuffix("_hls"))


def _bring_to_rtl(model: ModelWrapper, node: NodeProto, portable: bool) -> None:
    from finn.util.basic import getHWCustomOp

    operator = _operator(node)
    if operator in shapes.PRODUCTS:
        node.op_type, node.domain = f"{operator}_rtl", _RTL_DOMAIN
        op = getHWCustomOp(node)
        if not op.get_nodeattr("noActivation"):
            raise _no_rtl(node, "thresholds inside of it", "Build with standalone_thresholds=True")
        taken = op.get_input_datatype(0)
        if op.get_nodeattr("binaryXnorMode") or not taken.is_integer():
            raise _no_rtl(node, f"activations of type {taken.name}", "Build it with divqat")
        bits = weight_bits(model, node) if portable else max(2, weight_bits(model, node))
        signed = DataType["BIPOLAR" if bits == 1 else f"INT{bits}"]
        model.set_tensor_datatype(node.input[1], signed)
        op.set_nodeattr("weightDataType", signed.name)
        op.set_nodeattr("resType", "dsp")
        op.set_nodeattr("mem_mode", "internal_decoupled")
        if bits == taken.bitwidth() == 1:
            _count_equal_bits(model, node, op)
        if operator == shapes.VVAU:
            _check_window(model, node)
    elif operator == "Pool":
        function = getHWCustomOp(node).get_nodeattr("Function")
        if function != "MaxPool":
            raise _no_rtl(node, f"pooling of kind {function}", "Use MaxPool2d")
        _check_window(model, node)
    elif operator in _BRANCHES:
        return
    elif operator not in _GENERATED or not node.op_type.endswith("_rtl"):
        raise _no_rtl(node, f"an operator {operator}", "`divqat check` lists what can be hardware")


def _count_equal_bits(model: ModelWrapper, node: NodeProto, op: Any) -> None:
    """Counts in place of sums, where thresholds can take the difference."""
    from finn.util.basic import getHWCustomOp

    after = model.find_consumers(node.output[0])
    if len(after) != 1 or _operator(after[0]) != "Thresholding":
        return
    weights = model.get_initializer(node.input[1])
    counts = DataType[f"UINT{op.get_output_datatype().bitwidth()}"]
    for name in ("accDataType", "outputDataType"):
        op.set_nodeattr(name, counts.name)
    op.set_nodeattr("inputDataType", "BIPOLAR")  # for the wrapper: signed activations of one bit
    model.set_tensor_datatype(node.output[0], counts)
    steps = model.get_initializer(after[0].input[1]) + (weights < 0).sum(axis=0)[:, None]
    steps = np.clip(steps, 0, len(weights) + 1)
    model.set_initializer(after[0].input[1], steps.astype(np.float32))
    raised = DataType[f"UINT{bits_for(0, int(steps.max()))}"]
    model.set_tensor_datatype(after[0].input[1], raised)
    thresholding = getHWCustomOp(after[0])
    thresholding.set_nodeattr("inputDataType", counts.name)
    thresholding.set_nodeattr("weightDataType", raised.name)


def _check_window(model: ModelWrapper, node: NodeProto) -> None:
    """A layer that works channel by channel takes windows in the order of its own parallelism."""
    from finn.util.basic import getHWCustomOp

    generator = model.find_producer(node.input[0])
    if generator is None or _operator(generator) != "ConvolutionInputGenerator":
        raise _no_rtl(node, "without a generator of windows", "`divqat check` lists what can be")
    op, window = getHWCustomOp(node), getHWCustomOp(generator)
    lanes = op.get_nodeattr("PE")
    one = _operator(node) == "Pool" or op.get_nodeattr("SIMD") == 1
    if window.get_nodeattr("SIMD") != lanes or window.get_nodeattr("parallel_window") or not one:
        raise InputError(
            f"The folding does not fit: {generator.name} must have SIMD={lanes}, the PE of "
            f"{node.name} behind it, and parallel_window=0"
            + ("." if one else f"; {node.name} must have SIMD=1.")
            + " Change either in the folding."
        )


def _no_rtl(node: NodeProto, what: str, remedy: str) -> InputError:
    return InputError(f"There is no RTL for the layer {node.name}: it is {what}. {remedy}.")


def _ordered(model: ModelWrapper) -> list[NodeProto]:
    """The nodes, each behind those it reads; converters get the name of the port before them."""
    nodes: list[NodeProto] = []
    known = {model.graph.input[0].name, *(one.name for one in model.graph.initializer)}
    waiting = list(model.graph.node)
    while waiting:
        node = next((one for one in waiting if known.issuperset(one.input)), None)
        if node is None:
            raise InputError(f"The network has a layer without an input: {waiting[0].name}.")
        if node.op_type == _CONVERTER:
            node.name = f"{port_of(model, node.input[0])}_dwc"
        nodes.append(node)
        waiting.remove(node)
        known.update(node.output)
    return nodes


def _layer(
    model: ModelWrapper,
    node: NodeProto,
    folder: Path,
    part: str,
    clock_ns: float,
    portable: bool,
    others: list[dict[str, Any]],
) -> dict[str, Any]:
    from finn.util.basic import getHWCustomOp

    op, operator = getHWCustomOp(node), _operator(node)
    streams = {
        "input": _stream(op.get_folded_input_shape(), op.get_input_datatype()),
        "output": _stream(op.get_folded_output_shape(), op.get_output_datatype()),
    }
    attributes = {a.name: a.i for a in node.attribute if a.name in ("PE", "SIMD")}
    record = {
        "name": node.name,
        "op": operator,
        "sources": sources_of(model, node),
        "tensor": code_tensor(model, node),
        **streams,
        "cycles": int(op.get_exp_cycles()),
        "pe": attributes.get("PE"),
        "simd": attributes.get("SIMD"),
        "files": [],
    }
    if portable and operator == "ConvolutionInputGenerator":
        record["window"] = window_facts(op)
    before = next((one for one in others if portable and one["name"] in record["sources"]), None)
    if operator == "Thresholding" and searches_in_turn(record, before):
        op.set_nodeattr("deep_pipeline", 0)
    if operator == "Thresholding" and portable:
        record["shift"] = passed(model, node)
    if operator == shapes.FORK:
        record["copies"] = len(node.output)
    if operator in (shapes.SUM, shapes.CONCAT):
        record["pixels"] = int(np.prod(op.get_nodeattr("numInputVectors")))
    if operator in _JOINS:
        record["others"] = [
            _stream(op.get_folded_input_shape(k), op.get_input_datatype(k))
            for k in range(1, len(node.input))
        ]
    written = "window" in record and ours(record["window"])
    if operator not in _OURS and not written and record.get("shift") is None:
        op.set_nodeattr("code_gen_dir_ipgen", str(folder))
        if operator == shapes.VVAU and portable:
            part = _VERSAL_PART
        op.code_generation_ipgen(model, part, clock_ns)
        record["files"] = sorted(path.name for path in folder.iterdir())
    if operator in shapes.PRODUCTS:
        width = op.get_input_datatype(1).bitwidth()
        record["weights"] = {
            "depth": int(op.calc_wmem()),
            "width": attributes["PE"] * attributes.get("SIMD", 1) * width,
        }
    if operator == "Pool":
        record["pool"] = {"window": int(np.prod(op.get_nodeattr("KernelSize")))}
    return record


def _stream(folded: Any, datatype: Any) -> dict[str, Any]:
    return {
        "lanes": int(folded[-1]),
        "bits": datatype.bitwidth(),
        "signed": bool(datatype.signed()),
        "beats": int(np.prod(folded[:-1])),
    }

"""Inside FINN's worker process: a folded model as generated code, one folder a layer.

The build's model is taken after folding. Layers FINN would make HLS code of are brought to RTL:
matrix-vector units get signed weights of the bits they need, max pools become ours. Where two
layers' streams differ in width, a converter goes between.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper

from divqat_brevitas.errors import InputError
from fpga_flow.compile.worker_execution import OPERATORS
from fpga_flow.lowering.ir import bits_for
from fpga_flow.rtl.windows import fused, ours, searches_in_turn, window_facts
from fpga_flow.untrusted.onnx_file import read_step

# A part with DSP48E2 blocks: FINN's rules for the older ones exclude weights of full range,
# which only its own matrix-vector unit cannot take.
_PORTABLE_PART = "xczu3eg-sbva484-1-e"
_GENERATED = ("ConvolutionInputGenerator", "FMPadding", "MVAU", "Thresholding")
_OURS = ("Pool", "StreamingDataWidthConverter")
_RTL_DOMAIN = "finn.custom_op.fpgadataflow.rtl"
_CONVERTER = "StreamingDataWidthConverter"


def generate(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Generate the code of every layer.

    Args:
        job: ``model`` (a build's model after folding), ``device`` (board or part), ``clock_ns``,
            ``style``, ``folder`` (gets ``<layer>/`` with the files FINN writes).

    Returns:
        one record a layer, in the order of the chain: ``name``, ``op``, ``input`` and ``output``
        streams, ``cycles`` (FINN's estimate), ``pe``, ``simd``, ``files``, and what our modules
        need (``weights`` or ``pool``).

    Raises:
        InputError: a layer has no RTL.
    """
    from finn.transformation.fpgadataflow.insert_dwc import InsertDWC

    random.seed(0)
    np.random.seed(0)
    model = ModelWrapper(read_step(Path(job["model"]), OPERATORS))
    part = _PORTABLE_PART if job["style"] == "portable" else _part(job["device"])
    for node in model.graph.node:
        _bring_to_rtl(model, node)
    model = model.transform(InsertDWC())
    records: list[dict[str, Any]] = []
    portable = job["style"] == "portable"
    for node in _chain(model):
        folder = Path(job["folder"]) / node.name
        folder.mkdir()
        before = records[-1] if records and portable else None
        records.append(_layer(model, node, folder, part, job["clock_ns"], portable, before))
    return fused(records) if portable else records


def _part(device: str) -> str:
    from finn.util.basic import part_map

    return str(part_map.get(device, device))


def _operator(node: NodeProto) -> str:
    return str(node.op_type.removesuffix("_rtl").removesuffix("_hls"))


def _bring_to_rtl(model: ModelWrapper, node: NodeProto) -> None:
    from finn.util.basic import getHWCustomOp

    operator = _operator(node)
    if operator == "MVAU":
        node.op_type, node.domain = "MVAU_rtl", _RTL_DOMAIN
        op = getHWCustomOp(node)
        if not op.get_nodeattr("noActivation"):
            raise _no_rtl(node, "thresholds inside of it", "Build with standalone_thresholds=True")
        if op.get_nodeattr("binaryXnorMode") or not _is_code(op.get_input_datatype(0)):
            raise _no_rtl(
                node, "one-bit activations", "Use activations of at least 2 bits in front of it"
            )
        weights = model.get_initializer(node.input[1])
        bits = max(2, bits_for(min(-1, int(weights.min())), int(weights.max())))
        signed = DataType[f"INT{bits}"]
        model.set_tensor_datatype(node.input[1], signed)
        op.set_nodeattr("weightDataType", signed.name)
        op.set_nodeattr("resType", "dsp")
        op.set_nodeattr("mem_mode", "internal_decoupled")
    elif operator == "Pool":
        function = getHWCustomOp(node).get_nodeattr("Function")
        if function != "MaxPool":
            raise _no_rtl(node, f"pooling of kind {function}", "Use MaxPool2d")
        _check_window(model, node)
    elif operator not in _GENERATED or not node.op_type.endswith("_rtl"):
        raise _no_rtl(node, f"an operator {operator}", "`divqat check` lists what can be hardware")


def _check_window(model: ModelWrapper, pool: NodeProto) -> None:
    """A pool takes windows in the order that a generator of the same parallelism gives them."""
    from finn.util.basic import getHWCustomOp

    generator = model.find_producer(pool.input[0])
    lanes = getHWCustomOp(pool).get_nodeattr("PE")
    if generator is None or _operator(generator) != "ConvolutionInputGenerator":
        raise _no_rtl(pool, "a pool without a generator of windows", "Use MaxPool2d")
    window = getHWCustomOp(generator)
    if window.get_nodeattr("SIMD") != lanes or window.get_nodeattr("parallel_window"):
        raise InputError(
            f"The folding does not fit: {generator.name} must have SIMD={lanes}, the PE of "
            f"{pool.name} behind it, and parallel_window=0. Change either in the folding."
        )


def _is_code(datatype: Any) -> bool:
    return bool(datatype.is_integer()) and datatype.bitwidth() >= 2


def _no_rtl(node: NodeProto, what: str, remedy: str) -> InputError:
    return InputError(f"There is no RTL for the layer {node.name}: it is {what}. {remedy}.")


def _chain(model: ModelWrapper) -> list[NodeProto]:
    """The nodes from the input to the output; converters get the name of the layer before."""
    nodes: list[NodeProto] = []
    tensor, end = model.graph.input[0].name, model.graph.output[0].name
    while tensor != end:
        readers = model.find_consumers(tensor) or []
        if len(readers) != 1:
            raise InputError(
                "The network has branches, which hardware designs do not support: every layer "
                "must feed exactly one other."
            )
        (node,) = readers
        if node.op_type == _CONVERTER:
            node.name = f"{nodes[-1].name}_dwc"
        nodes.append(node)
        tensor = node.output[0]
    return nodes


def _layer(
    model: ModelWrapper,
    node: NodeProto,
    folder: Path,
    part: str,
    clock_ns: float,
    portable: bool,
    before: dict[str, Any] | None,
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
        **streams,
        "cycles": int(op.get_exp_cycles()),
        "pe": attributes.get("PE"),
        "simd": attributes.get("SIMD"),
        "files": [],
    }
    if portable and operator == "ConvolutionInputGenerator":
        record["window"] = window_facts(op)
    if operator == "Thresholding" and searches_in_turn(record, before):
        op.set_nodeattr("deep_pipeline", 0)
    if operator not in _OURS and not ("window" in record and ours(record["window"])):
        op.set_nodeattr("code_gen_dir_ipgen", str(folder))
        op.code_generation_ipgen(model, part, clock_ns)
        record["files"] = sorted(path.name for path in folder.iterdir())
    if operator == "MVAU":
        weight_bits = op.get_input_datatype(1).bitwidth()
        record["weights"] = {
            "depth": int(op.calc_wmem()),
            "width": attributes["PE"] * attributes["SIMD"] * weight_bits,
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

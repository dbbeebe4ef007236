"""What cannot become a hardware design, said of the QONNX file before FINN starts."""

from pathlib import Path

from onnx import NodeProto
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.util.basic import get_by_name

from fpga_flow.compile.legality import Finding
from fpga_flow.lowering import clean, source_of

_QUANTIZERS = ("Quant", "BipolarQuant")


def rtl_findings(onnx_path: Path) -> list[Finding]:
    """Find the nodes of a QONNX file that a hardware design has no module for.

    These come on top of ``fpga_flow.compile.legality``: FINN builds such networks, but makes code
    for Vivado's high-level synthesis of those layers, or needs a newer AMD part.

    Args:
        onnx_path: a QONNX file.

    Returns:
        findings in network order; none does not promise a design.

    Raises:
        InputError: no ONNX file, or no QONNX in it.

    Example:
        >>> [finding.node for finding in rtl_findings(Path("model.onnx"))]  # doctest: +SKIP
        ['/features/3/Conv']
    """
    model = clean(Path(onnx_path))
    findings = []
    quantizers = [n for n in model.graph.node if n.op_type in _QUANTIZERS]
    moving = [n for n in quantizers if model.get_initializer(n.input[0]) is None]
    for node in model.graph.node:
        said = _check(model, node, moving[0] if moving else None)
        if said is not None:
            findings.append(Finding(source_of(node), node.op_type, *said))
    return findings


def _check(model: ModelWrapper, node: NodeProto, first: NodeProto | None) -> tuple[str, str] | None:
    if node.op_type == "Conv":
        group = get_by_name(node.attribute, "group")
        if group is not None and group.i > 1:
            return (
                "FINN has RTL for depthwise convolutions on AMD's Versal parts only",
                "Use groups=1",
            )
        kernel, strides = (_pair(node, name) for name in ("kernel_shape", "strides"))
        if kernel[0] < strides[0] and kernel != (1, 1):
            return (
                f"FINN makes no windows of {kernel[0]} rows with a stride of {strides[0]}",
                "Use a kernel with at least as many rows as the stride",
            )
    if node.op_type == "MaxPool":
        pads = get_by_name(node.attribute, "pads")
        before = model.find_producer(node.input[0])
        signed = before is not None and before.op_type == "Quant"
        if signed and pads is not None and any(pads.ints):
            attribute = get_by_name(before.attribute, "signed")
            if attribute is None or attribute.i:
                return (
                    "FINN pads a pool with zeros, which could win against signed codes",
                    "Set padding=0, or put an unsigned quantizer (QuantReLU) in front of it",
                )
    if node.op_type in _QUANTIZERS and model.get_initializer(node.input[0]) is None:
        return _check_activation(model, node, node is first)
    return None


def _pair(node: NodeProto, name: str) -> tuple[int, int]:
    attribute = get_by_name(node.attribute, name)
    return (1, 1) if attribute is None else (attribute.ints[0], attribute.ints[-1])


def _check_activation(model: ModelWrapper, node: NodeProto, first: bool) -> tuple[str, str] | None:
    bits = 1 if node.op_type == "BipolarQuant" else model.get_initializer(node.input[3])
    if bits is None:
        return None
    if bits < 2:
        return (
            "there is no RTL for one-bit activations",
            "Use an activation bit width of at least 2",
        )
    if not first:
        return None
    scale = model.get_initializer(node.input[1])
    if bits > 8 or scale is None or scale.size != 1:
        return (
            "the image enters as integers of at most 8 bits with one scale",
            "Use QuantIdentity(bit_width=8) with one scale for all channels on the image",
        )
    return None

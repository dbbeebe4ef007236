"""What cannot become a hardware design, reported before FINN starts."""

from collections.abc import Iterator
from pathlib import Path

from qonnx.core.datatype import DataType

from divqat_brevitas.errors import InputError
from fpga_flow.compile.legality import Finding, findings_of, layer_findings
from fpga_flow.compile.obstacles import Obstacle
from fpga_flow.compile.worker_execution import OPERATORS
from fpga_flow.folding.branches import TangledError, series_parallel
from fpga_flow.folding.shapes import PRODUCTS, VVAU, LayerShape
from fpga_flow.lowering import Network, clean, lower
from fpga_flow.lowering.attributes import attribute
from fpga_flow.untrusted.onnx_file import read_step

# How the names of AMD's Versal parts begin, and FINN's names of boards with one.
_VERSAL = (
    "xcvc",
    "xcve",
    "xcvp",
    "xcvm",
    "xqvc",
    "xqvm",
    "xqrvc",
    "xcv80",
    *("VCK190", "VEK280", "V80"),
)


def rtl_findings(onnx_path: Path) -> list[Finding]:
    """Find the nodes of a QONNX file that a hardware design has no module for.

    These come on top of ``fpga_flow.compile.legality``: FINN builds such networks. A network that
    FINN does not build has none.

    Args:
        onnx_path: a QONNX file.

    Returns:
        findings in network order; none: a network that FINN builds becomes a design.

    Raises:
        InputError: no ONNX file, or no QONNX in it.

    Example:
        >>> [finding.node for finding in rtl_findings(Path("model.onnx"))]
        []
    """
    model = clean(Path(onnx_path))
    return [] if findings_of(model) else layer_findings(model, _obstacles(lower(model)), "RTL")


def refuse_without_rtl(onnx_path: Path) -> None:
    """Refuse a network that FINN builds and that becomes no hardware design.

    Raises:
        InputError: the first of ``rtl_findings``, and how many more there are.
    """
    if findings := rtl_findings(onnx_path):
        more = f" ({len(findings) - 1} more findings: `divqat check`.)" if findings[1:] else ""
        raise InputError(f"{onnx_path.name}: there is no RTL for it. {findings[0]}{more}")


def refuse_finn_style(folded: Path, device: str) -> None:
    """Refuse the style ``"finn"`` for layers that only our own modules are there for.

    Args:
        folded: the model of a FINN build after folding.
        device: the board or part it was built for.

    Raises:
        InputError: the first layer with one-bit activations, or with a depthwise convolution for
            a part that is not AMD's Versal.
    """
    for node in read_step(folded, OPERATORS).graph.node:
        operator = node.op_type.partition("_")[0]
        what, remedy = "", 'Use style="portable"'
        if operator not in PRODUCTS:
            continue
        if DataType[attribute(node, "inputDataType", "INT8")].bitwidth() == 1:
            what = "one-bit activations, which FINN's own modules do not take"
        elif operator == VVAU and not device.startswith(_VERSAL):
            what = "a depthwise convolution, which FINN's own modules have for AMD's Versal only"
            remedy += ", or a Versal device"
        if what:
            raise InputError(f"There is no RTL for the layer {node.name}: it is {what}. {remedy}.")


def _obstacles(network: Network) -> Iterator[Obstacle]:
    layers = [LayerShape(name=network.input.output, kind=network.input.op)]
    layers += [
        LayerShape(name=layer.output, kind=layer.op, sources=layer.inputs)
        for layer in network.layers
    ]
    try:
        series_parallel(layers)
    except TangledError as e:
        yield Obstacle(
            network.layer(e.layer),
            "its branches do not meet again in one sum or concatenation, and no folding is known "
            "for that",
            "Let every branch that leaves a layer end in the same one",
        )

"""What FINN cannot build, said before it starts: one sentence a node, with the remedy.

A network is legal if it becomes integers (``fpga_flow.lowering``) and these have no
``obstacles`` to being FINN's graph. The rules were measured on finn-plus 1.6.1 with its default
steps; FINN itself reports most of them late and by the names of its own intermediate nodes.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from onnx import NodeProto
from qonnx.core.modelwrapper import ModelWrapper

from fpga_flow.compile.obstacles import Obstacle, obstacles
from fpga_flow.lowering import LoweringError, clean, lower, source_of

_ACTIVATION = (
    "FINN's build has no hardware for this activation function",
    "Use QuantReLU, QuantHardTanh or QuantIdentity",
)
# Operators that do not become integers, with a better remedy than the lowering's.
_OPERATORS = {
    "ConvTranspose": (
        "FINN's build has no transposed convolution",
        "Use strided convolutions; a classifier needs no larger maps",
    ),
    "Trunc": (
        "FINN maps truncating average pooling only in special places",
        "Use MaxPool2d or a strided convolution instead of TruncAvgPool2d",
    ),
    "Pad": ("FINN pads inside convolutions only", "Set padding=... of the convolution behind it"),
    **dict.fromkeys(
        ("LogSoftmax", "Softmax"),
        (
            "FINN's build computes integers, no softmax",
            "Take it out of the exported model: the logits rank the classes alike, and the host "
            "can apply it",
        ),
    ),
    **dict.fromkeys(
        (
            "Celu",
            "Elu",
            "Erf",
            "Gelu",
            "HardSigmoid",
            "HardSwish",
            "LeakyRelu",
            "PRelu",
            "Selu",
            "Sigmoid",
            "Softplus",
            "Tanh",
        ),
        _ACTIVATION,
    ),
    **dict.fromkeys(
        ("Resize", "Upsample"),
        ("FINN's build has no upsampling", "Use layers that keep or shrink the map"),
    ),
}
# Modules inside a Brevitas layer.
_INSIDE = re.compile(r"(^|\.)(weight|bias|act|input|output|trunc)_quant(\.|$)")


@dataclass(frozen=True)
class Finding:
    """A node that cannot be built.

    Attributes:
        node: its name in the exported file.
        op: its operator.
        problem: what there is no hardware for.
        remedy: what to change in the network.
        level: ``"FINN"``: no build takes it; ``"RTL"``: FINN's build does, the RTL engine and open
            devices do not.
    """

    node: str
    op: str
    problem: str
    remedy: str
    level: str = "FINN"

    @property
    def layer(self) -> str:
        """The PyTorch module's name, as in ``model.named_modules()``; empty: not told, or itself.

        Example:
            >>> Finding("/features/features.0/weight_quant/export_handler/Quant", "", "", "").layer
            'features.0'
        """
        path = ""
        for part in self.node.strip("/").split("/")[:-1]:
            # Exporters write a module inside another with its whole name, or with its own.
            path = part if not path or part.startswith(f"{path}.") else f"{path}.{part}"
        return _INSIDE.split(path)[0]

    def __str__(self) -> str:
        layer = f"layer {self.layer!r}, " if self.layer else ""
        return f"{layer}{self.op} node {self.node!r}: {self.problem}. {self.remedy}."


def legality(onnx_path: Path) -> list[Finding]:
    """Find the nodes of a QONNX file that a FINN build has no hardware for.

    This is the rule that ``compile_finn`` and the engine "finn" go by; the engine "rtl" adds
    ``fpga_flow.rtl.refusals.rtl_findings``.

    Args:
        onnx_path: a QONNX file.

    Returns:
        findings in network order; none: the network builds.

    Raises:
        InputError: no ONNX file, or no QONNX in it.

    Example:
        >>> [finding.node for finding in legality(Path("model.onnx"))]
        []
    """
    return findings_of(clean(Path(onnx_path)))


def findings_of(model: ModelWrapper) -> list[Finding]:
    """``legality`` of a cleaned model."""
    try:
        network = lower(model)
    except LoweringError as e:
        unmapped = [node for node in model.graph.node if node.op_type in _OPERATORS]
        return [_finding(node, *_OPERATORS[node.op_type]) for node in unmapped] or [
            _finding(e.node, e.problem, e.remedy)
        ]
    return layer_findings(model, obstacles(network))


def layer_findings(
    model: ModelWrapper, found: Iterable[Obstacle], level: str = "FINN"
) -> list[Finding]:
    """Obstacles by the nodes of the cleaned model that they come from."""
    nodes = {node.name: node for node in model.graph.node}
    return [_finding(nodes[one.layer.name], one.problem, one.remedy, level) for one in found]


def _finding(node: NodeProto, problem: str, remedy: str, level: str = "FINN") -> Finding:
    return Finding(source_of(node), node.op_type, problem, remedy, level)

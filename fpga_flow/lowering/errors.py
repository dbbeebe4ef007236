"""What the lowering refuses, with the node and the remedy in one paragraph."""

from onnx import NodeProto

from divqat_brevitas.errors import InputError
from fpga_flow.lowering.model import source_of


class LoweringError(InputError):
    """A node cannot become integers; the message names it and says what to change."""


def refuse(node: NodeProto, problem: str, remedy: str) -> LoweringError:
    """The error for ``node``: its operator, names, the ``problem`` and the ``remedy``."""
    source = source_of(node)
    where = f"{node.op_type} node {node.name!r}"
    if source not in ("", node.name):
        where += f" (in the file: {source!r})"
    return LoweringError(f"{where}: {problem}. {remedy}.")

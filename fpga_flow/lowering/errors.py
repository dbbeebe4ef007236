"""What the lowering refuses, with the node and the remedy in one paragraph."""

from onnx import NodeProto

from divqat_brevitas.errors import InputError
from fpga_flow.lowering.model import source_of


class LoweringError(InputError):
    """A node cannot become integers; the message names it and says what to change.

    Attributes:
        node: the node, of the cleaned model.
        problem: why it cannot.
        remedy: what to change.
    """

    def __init__(self, node: NodeProto, problem: str, remedy: str) -> None:
        self.node = node
        self.problem = problem
        self.remedy = remedy
        source = source_of(node)
        where = f"{node.op_type} node {node.name!r}"
        if source not in ("", node.name):
            where += f" (in the file: {source!r})"
        super().__init__(f"{where}: {problem}. {remedy}.")


def refuse(node: NodeProto, problem: str, remedy: str) -> LoweringError:
    """The error for ``node``: its operator, names, the ``problem`` and the ``remedy``."""
    return LoweringError(node, problem, remedy)

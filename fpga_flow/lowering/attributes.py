"""Attributes of ONNX nodes."""

from typing import Any

import onnx
from onnx import NodeProto


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, text decoded, or ``default`` where it is absent."""
    for candidate in node.attribute:
        if candidate.name == name:
            value = onnx.helper.get_attribute_value(candidate)
            return value.decode() if isinstance(value, bytes) else value
    return default

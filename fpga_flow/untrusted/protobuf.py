"""How much a protobuf message holds, told from its bytes before they become objects.

Two bytes of a file can be a message of a hundred bytes in memory, and messages can lie in
messages without end; see the encoding's definition, https://protobuf.dev/programming-guides/encoding.
"""

from typing import Any

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def count_messages(content: bytes, descriptor: Any, most: int, deepest: int) -> int:
    """Number of entries (fields) of a serialized message and all messages in it.

    Args:
        content: the serialized message.
        descriptor: its type, such as ``onnx.ModelProto.DESCRIPTOR``.
        most: stop at so many entries.
        deepest: stop at messages nested so deep.

    Raises:
        ValueError: no such message, or a truncated one.
        OverflowError: a bound was passed.

    Example:
        >>> from onnx import ModelProto
        >>> model = ModelProto(producer_name="me", ir_version=8)
        >>> count_messages(model.SerializeToString(), ModelProto.DESCRIPTOR, 100, 10)
        2
    """
    entries = 0
    open_messages = [(descriptor, 0, len(content), 0)]
    while open_messages:
        kind, at, end, depth = open_messages.pop()
        if depth > deepest:
            raise OverflowError(f"messages nested more than {deepest} deep (subgraphs)")
        fields = kind.fields_by_number
        while at < end:
            entries += 1
            if entries > most:
                raise OverflowError(f"more than {most} entries")
            tag, at = _varint(content, at, end)
            number, wire = tag >> 3, tag & 7
            if wire == _VARINT:
                _, at = _varint(content, at, end)
            elif wire == _BYTES:
                length, at = _varint(content, at, end)
                field = fields.get(number)
                if field is not None and field.message_type is not None:
                    open_messages.append((field.message_type, at, at + length, depth + 1))
                at += length
            elif wire in (_FIXED64, _FIXED32):
                at += 8 if wire == _FIXED64 else 4
            else:
                raise ValueError(f"wire type {wire}")
            if at > end:
                raise ValueError("truncated")
    return entries


def _varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("truncated")

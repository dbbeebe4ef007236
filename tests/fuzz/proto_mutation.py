"""Mutations of a valid protobuf message, field by field: most results still parse."""

import random
from typing import Any

_INTS = (0, 1, -1, 2, 7, 127, 2**16, 2**31 - 1, 2**31, 2**53, 2**63 - 1, -(2**31), -(2**63))
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, float("inf"), float("-inf"), float("nan"))
_TEXTS = (b"", b"x", b"../../etc/passwd", b"/dev/zero", b"a" * 2000, b"\xff\xfe", "ü€".encode())
_WORDS = (b"Quant", b"Conv", b"MatMul", b"Concat", b"Expand", b"Tile", b"Loop", b"Constant", b"Add")


def mutate(message: Any, rng: random.Random, times: int = 1) -> None:
    """Change ``message`` in place, ``times`` times."""
    for _ in range(times):
        _once(rng.choice(_messages(message)), rng, message)


def _messages(message: Any) -> list[Any]:
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if _repeated(field) else [value]:
                found += _messages(one)
    return found


def _once(message: Any, rng: random.Random, whole: Any) -> None:
    present = [field for field, _ in message.ListFields()]
    field = rng.choice(present if present and rng.random() < 0.8 else message.DESCRIPTOR.fields)
    values = getattr(message, field.name)
    if not _repeated(field):
        if rng.random() < 0.2:
            message.ClearField(field.name)
        elif field.message_type is not None:
            values.CopyFrom(_alike(values, whole, rng))
        else:
            setattr(message, field.name, _value(field, rng, values))
        return
    at = rng.randrange(len(values)) if len(values) else 0
    action = rng.randrange(5)
    if action == 0 and len(values):
        del values[at]
    elif field.message_type is not None:
        if action == 1 and len(values):
            values.add().CopyFrom(values[at])
        elif action == 2 and len(values) > 1:
            other = rng.randrange(len(values))
            keep = type(values[at])()
            keep.CopyFrom(values[at])
            values[at].CopyFrom(values[other])
            values[other].CopyFrom(keep)
        else:
            values.add().CopyFrom(_alike(values.add(), whole, rng))
    elif action == 1 or not len(values):
        values.append(_value(field, rng, None))
    elif action == 2:
        values.extend(list(values)[:64])
    else:
        values[at] = _value(field, rng, values[at])


def _alike(message: Any, whole: Any, rng: random.Random) -> Any:
    """A copy of another message of the same type, from anywhere in the whole."""
    same = [one for one in _messages(whole) if one.DESCRIPTOR is message.DESCRIPTOR]
    # Through bytes: protobuf crashes where a message is copied into a part of itself.
    return type(message).FromString(rng.choice(same or [message]).SerializePartialToString())


def _value(field: Any, rng: random.Random, old: Any) -> Any:
    kinds = type(field)
    if field.type == kinds.TYPE_ENUM:
        return rng.choice([value.number for value in field.enum_type.values])
    if field.cpp_type in (kinds.CPPTYPE_FLOAT, kinds.CPPTYPE_DOUBLE):
        return rng.choice((*_FLOATS, rng.uniform(-10, 10)))
    if field.cpp_type == kinds.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.cpp_type != kinds.CPPTYPE_STRING:
        low, high = (-(2**31), 2**31 - 1) if "32" in _name(field) else (-(2**63), 2**63 - 1)
        if "UINT" in _name(field):
            low, high = 0, 2 * high + 1
        number = rng.choice((*_INTS, rng.randrange(16), (old or 0) + rng.choice((-1, 1))))
        return min(max(number, low), high)
    if field.type == kinds.TYPE_BYTES:
        content = bytearray(old or b"12345678")
        if content and rng.random() < 0.7:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        else:
            content = content[: rng.randrange(len(content) + 1)]
        return bytes(content)
    text = rng.choice((*_TEXTS, *_WORDS)).decode("utf-8", "ignore")
    return text if rng.random() < 0.6 else f"{old or ''}{rng.randrange(3)}"


def _repeated(field: Any) -> bool:
    return bool(field.label == field.LABEL_REPEATED)


def _name(field: Any) -> str:
    kinds = type(field)
    names = ("INT32", "INT64", "UINT32", "UINT64")
    return next((n for n in names if getattr(kinds, f"CPPTYPE_{n}") == field.cpp_type), "INT64")

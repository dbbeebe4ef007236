"""A ``repr`` of at most a few lines for objects that hold arrays, networks or long collections."""

import dataclasses
from pathlib import PurePath
from typing import Any

_FEW = 4  # elements of a collection that are shown; of more, only the number
_WIDTH = 60  # characters of any other value


class ShortRepr:
    """Base of dataclasses whose fields grow with a network, a data set or a run.

    Arrays show as dtype and shape, modules and nested objects as their class, long collections as
    their length. Subclasses inherit it, though ``@dataclass`` writes a ``repr`` for each class
    that has none in its own body.

    Example:
        >>> import numpy as np
        >>> @dataclasses.dataclass
        ... class Layer(ShortRepr):
        ...     name: str
        ...     weight: Any
        ...     shape: tuple[int, ...]
        >>> Layer("conv1", np.zeros((64, 3, 3, 3), np.int64), (64, 8, 8))
        Layer(name='conv1', weight=<int64 (64, 3, 3, 3)>, shape=(64, 8, 8))
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Give the class a ``__repr__`` of its own, which ``@dataclass`` then leaves alone."""
        super().__init_subclass__(**options)
        if "__repr__" not in vars(cls):
            cls.__repr__ = short_repr  # type: ignore[method-assign]


def short_repr(value: Any) -> str:
    """``Class(field=..., ...)`` of a dataclass, a named tuple or a pydantic model."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.repr]
    else:
        names = list(getattr(type(value), "_fields", ()) or type(value).model_fields)
    shown = ", ".join(f"{name}={_short(getattr(value, name))}" for name in names)
    return f"{type(value).__name__}({shown})"


def _short(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"<{value.dtype} {tuple(value.shape)}>"
    if isinstance(value, str | bytes):
        return _cut(repr(value))
    if isinstance(value, tuple | list | set | frozenset | dict) and len(value) > _FEW:
        kinds = {type(item).__name__ for item in value}
        of = kinds.pop() if len(kinds) == 1 else "objects"
        return f"<{type(value).__name__} of {len(value)} {of}>"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_short(k)}: {_short(v)}" for k, v in value.items()) + "}"
    if type(value) in (tuple, list):
        opening, closing = ("(", ")") if isinstance(value, tuple) else ("[", "]")
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        return f"{opening}{', '.join(map(_short, value))}{comma}{closing}"
    if value is None or isinstance(value, bool | int | float | PurePath):
        return repr(value)
    text = repr(value)
    return text if len(text) <= _WIDTH and "\n" not in text else f"<{type(value).__name__}>"


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 4]}...{text[-1]}"

"""Changed settings as a user of Python writes them."""

import json
from collections.abc import Iterable, Mapping

Overrides = Mapping[str, object] | Iterable[str]


def texts(overrides: Overrides) -> list[str]:
    """Settings as ``section.key=value``, the form of the command line's ``--set``.

    Args:
        overrides: these texts, or a mapping of ``section.key`` to a value.

    Example:
        >>> texts({"model.bits": "w4a4", "attack.budgets": [200, 1000], "compile.fill": None})
        ['model.bits="w4a4"', 'attack.budgets=[200, 1000]', 'compile.fill=none']
    """
    if isinstance(overrides, str):
        return [overrides]
    if not isinstance(overrides, Mapping):
        return list(overrides)
    return [f"{key}={_text(value)}" for key, value in overrides.items()]


def _text(value: object) -> str:
    if value is None:
        return "none"
    # JSON's strings, numbers, lists and booleans are TOML's.
    return json.dumps(value, default=str)

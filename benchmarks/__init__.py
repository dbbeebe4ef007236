"""Benchmarks of this repository: code and committed results side by side; not in the wheel.

``divqat bench NAME`` loads :mod:`benchmarks.commands` from a source checkout.
"""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The checkout."""


def child_environment() -> dict[str, str]:
    """The environment in which a child process imports this package too."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

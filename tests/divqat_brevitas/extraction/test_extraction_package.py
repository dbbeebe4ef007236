import ast
import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

from divqat_brevitas import extraction

MODULES = ["divqat_brevitas.extraction"] + [
    f"divqat_brevitas.extraction.{m.name}" for m in pkgutil.iter_modules(extraction.__path__)
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_public_names_exist_and_are_sorted() -> None:
    assert all(hasattr(extraction, name) for name in extraction.__all__)
    assert extraction.__all__ == sorted(extraction.__all__, key=lambda n: (not n.isupper(), n))


def test_knows_nothing_of_the_fpga_flow() -> None:
    for path in Path(extraction.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("fpga_flow") for name in names), path

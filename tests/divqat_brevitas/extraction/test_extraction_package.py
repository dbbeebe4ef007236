import ast
from pathlib import Path

from divqat_brevitas import extraction


def test_public_names_exist_and_are_sorted() -> None:
    assert all(hasattr(extraction, name) for name in extraction.__all__)
    assert extraction.__all__ == sorted(extraction.__all__, key=lambda n: (not n.isupper(), n))


def test_knows_nothing_of_the_fpga_flow() -> None:
    for path in Path(extraction.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("fpga_flow") for name in names), path

"""`divqat bench` with and without a source checkout, and which way imports go."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_without_a_checkout_it_exits_with_3_and_says_how_to_get_one(tmp_path: Path) -> None:
    for package in ("divqat_brevitas", "fpga_flow"):
        shutil.copytree(ROOT / package, tmp_path / package)
    program = "from fpga_flow.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "bench", "extraction", "--scale", "mini"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "needs the benchmarks' code and data" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_packages_import_no_benchmark() -> None:
    for package in ("divqat_brevitas", "fpga_flow"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = []
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                elif isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                assert not [name for name in names if name.split(".")[0] == "benchmarks"], file

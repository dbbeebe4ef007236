"""The names that users type, and which way imports go."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = [
    "untrusted",
    "lowering",
    "integer",
    "export",
    "folding",
    "compile",
    "vivado",
    "rtl",
    "synthesis",
    "host",
    "engines",
    "report",
    "pipeline",
    "api",
    "cli",
]


def test_public_names_are_there() -> None:
    import divqat_brevitas
    import fpga_flow
    from divqat_brevitas.extraction import KnockoffNets, Victim
    from divqat_brevitas.quant import Int4WeightPerChannelFloatDivQAT, Uint4ActPerTensorFloatDivQAT

    for package in (divqat_brevitas, fpga_flow):
        for name in package.__all__:
            assert callable(getattr(package, name))
        with pytest.raises(AttributeError):
            package.no_such_name  # noqa: B018
    assert all(map(callable, (KnockoffNets, Victim)))
    assert Int4WeightPerChannelFloatDivQAT is not Uint4ActPerTensorFloatDivQAT


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_the_plug_in_never_imports_the_flow() -> None:
    for file in (ROOT / "divqat_brevitas").rglob("*.py"):
        assert not any(name.startswith("fpga_flow") for name in imports(file)), file


def test_the_packages_import_no_benchmark() -> None:
    for package in ("divqat_brevitas", "fpga_flow"):
        for file in (ROOT / package).rglob("*.py"):
            assert not [name for name in imports(file) if name.split(".")[0] == "benchmarks"], file


def test_no_stage_imports_a_later_one() -> None:
    for number, stage in enumerate(STAGES):
        later = tuple(f"fpga_flow.{name}" for name in STAGES[number + 1 :])
        room = ROOT / "fpga_flow" / stage
        for file in [room.with_suffix(".py")] if stage == "api" else room.rglob("*.py"):
            assert not [name for name in imports(file) if name.startswith(later)], file


def test_the_api_is_imported_without_anything_heavy() -> None:
    code = (
        "import sys, fpga_flow.api; print({'torch', 'brevitas', 'onnx', 'finn'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_without_a_checkout_benchmarks_exit_with_3_and_the_way_to_one(
    tmp_path: Path,
) -> None:
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

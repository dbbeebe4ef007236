"""What the README and the examples show runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def run(arguments: list[str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_python_blocks_of_the_readme_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 6
    (tmp_path / "readme.py").write_text("\n".join(blocks), encoding="utf-8")
    printed = run(["readme.py"], tmp_path)
    assert "digits.onnx: 0 mismatches over" in printed
    _, stolen, thief, terms, timing = printed.splitlines()[-5:]
    assert stolen.endswith(" 200")
    assert thief == "120 filtered-argmax"
    assert "'decoy': " in terms
    latency, interval = map(int, timing.split())
    assert latency > interval > 64  # an image has 64 pixels, one a cycle


@pytest.mark.slow
def test_examples_run(tmp_path: Path) -> None:
    printed = run([str(ROOT / "examples" / "01_swap_quantizers.py")], tmp_path)
    assert "digits.onnx: 0 mismatches over" in printed
    printed = run([str(ROOT / "examples" / "05_steal_a_model.py")], tmp_path)
    assert re.search(r"soft: .*after 200 queries", printed)
    assert re.search(r"top1: .*after 200 queries", printed)


def test_the_readme_swap_is_the_example() -> None:
    example = (ROOT / "examples" / "01_swap_quantizers.py").read_text(encoding="utf-8")
    code = example.partition('"""\n\n')[2]
    assert code in README


def test_every_command_named_exists() -> None:
    from fpga_flow.cli import cli

    named = {
        word
        for line in re.findall(r"^divqat (\S+)", README, flags=re.MULTILINE)
        for word in line.split("|")
    }
    assert {"run", "train", "report", "doctor", "data", "check"} <= named
    assert named <= set(cli.commands)

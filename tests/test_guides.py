"""The guides under docs/ run as they stand, and say what is printed."""

import re
from pathlib import Path

import pytest
from test_readme import ROOT, run

GUIDES = ROOT / "docs" / "guides"


def fenced(guide: str, kind: str) -> list[str]:
    """A guide's blocks of one kind: "python", or "" for plain text."""
    text = (GUIDES / guide).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == kind]


def run_blocks(guide: str, folder: Path) -> str:
    """Every Python block of a guide, one after the other in one program; what it printed."""
    blocks = fenced(guide, "python")
    assert blocks
    (folder / "guide.py").write_text("\n".join(blocks), encoding="utf-8")
    return run(["guide.py"], folder)


def without_numbers(text: str) -> str:
    return re.sub(r"[\d.]+", "#", text)


@pytest.mark.slow
def test_the_guide_for_brevitas_users(tmp_path: Path) -> None:
    printed = run_blocks("from-brevitas.md", tmp_path)
    first = printed.splitlines()[0]
    assert first.startswith("0 mismatches, accuracy in integers ")
    assert float(first.split()[-1]) > 0.8  # ten classes: a tenth is chance
    shown = fenced("from-brevitas.md", "")
    assert len(shown) == 2
    for block in shown:  # the first one's scales differ with the training
        assert without_numbers(block) in without_numbers(printed)
    assert shown[1] in printed
    assert "8 layers, 0 problems\n4 (-7, 7) 64 None\n" in printed
    last = printed.splitlines()[-1]
    assert last.startswith("None 0 [")
    assert "'Add'" in last


def test_the_guide_for_finn_users(tmp_path: Path) -> None:
    assert run_blocks("from-finn.md", tmp_path) == "0 []\n"


def test_steps_named_in_the_guide_exist() -> None:
    from fpga_flow.compile import checks, steps

    text = (GUIDES / "from-finn.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(checks|steps)\.(step_\w+)", text))
    older = re.search(r"Older lists name (.*?)\.", text, re.DOTALL)
    assert named
    assert older
    named |= {("steps", name) for name in re.findall(r"`(step_\w+)`", older[1])}
    for module, name in named:
        assert callable(getattr({"checks": checks, "steps": steps}[module], name))


def test_twenty_lines_are_about_twenty() -> None:
    block = fenced("from-brevitas.md", "python")[0]
    code = [line for line in block.splitlines() if line.strip() and "import" not in line]
    assert len(code) <= 20

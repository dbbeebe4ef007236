"""The pages run as they stand; every command and setting they name exists."""

import re
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import click
import pytest
from documented import DOCS, ROOT, blocks, commands, run, run_page

PAGES = sorted(page for page in DOCS.rglob("*.md") if page.name != "licences.md")
OURS = [page for page in PAGES if page.parent.name != "guides"]  # guides have tests of their own


def marked(mark: str) -> list[Path]:
    """Pages with a block to run that has this mark."""
    runs = ("python", "sh")
    return [p for p in OURS if any(b.kind in runs and b.mark == mark for b in blocks(p))]


QUICK, SLOW = marked(""), marked("slow")


def name(page: Path) -> str:
    return str(page.relative_to(DOCS))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that the pages begin with; for them it is up to date already."""
    folder = tmp_path_factory.mktemp("docs")
    lines = {tuple(c) for page in QUICK for b in blocks(page) for c in commands(b.code)}
    (line,) = [line for line in lines if line[-2:] == ("--until", "export")]
    run(["-c", "from fpga_flow.cli import main; main()", *line], folder)
    return folder


@pytest.mark.parametrize("page", QUICK, ids=name)
def test_a_page_runs(page: Path, exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(exported, folder)
    run_page(page, folder, slow=False)


@pytest.mark.slow
@pytest.mark.finn
@pytest.mark.parametrize("page", SLOW, ids=name)
def test_a_whole_page_runs(page: Path, exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(exported, folder)
    run_page(page, folder, slow=True)


def test_what_is_not_run_says_why() -> None:
    marks = [block.mark for page in OURS for block in blocks(page) if block.mark]
    reasons = [mark.removeprefix("not run: ") for mark in marks if mark != "slow"]
    assert len(reasons) > 4
    assert all(len(reason.split()) > 2 for reason in reasons)


def parse(line: list[str]) -> None:
    """What click does of a command line before the command runs: names, options, types."""
    from fpga_flow.cli import cli

    command: click.Command = cli
    context, rest = cli.make_context("divqat", list(line)), list(line)
    while isinstance(command, click.Group):
        word, command, rest = command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(word, list(rest), parent=context)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_commands_parse_and_settings_exist(page: Path) -> None:
    from fpga_flow.pipeline.resolve import resolve

    for block in blocks(page):
        if block.kind in ("python", "toml"):
            continue
        for line in commands(block.code):
            if "|" in line[0]:  # the README names all stages in one line
                continue
            parse(line)
            options = dict(pairwise(line))
            given = [value for word, value in pairwise(line) if word == "--set"]
            if page.name == "plugins.md":  # of plug-ins that are not installed here
                continue
            resolve(None, options.get("--preset"), given)


def test_a_misspelt_option_would_be_found() -> None:
    with pytest.raises(click.NoSuchOption):
        parse(["run", "--preset", "smoke", "--utnil", "export"])
    with pytest.raises(click.UsageError):
        parse(["atack", "runs/smoke"])


def test_no_page_names_a_place_of_one_machine() -> None:
    for page in OURS:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(?:home|work|root|opt|tmp|usr)/", text), page
        assert sys.prefix not in text


def test_every_preset_named_exists() -> None:
    from fpga_flow.pipeline.resolve import presets

    text = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"Presets: (.*)\.$", text, flags=re.MULTILINE)
    assert set(re.findall(r"`([\w-]+)`", listed)) == set(presets())


def test_the_benchmark_still_says_what_the_page_says() -> None:
    """In distribution "little or nothing to gain", "a few points below": the table says so."""
    pytest.importorskip("griffe", reason="pip install 'divqat[docs]'")
    sys.path.append(str(DOCS))
    import hooks

    rows = [row.split(" | ") for row in hooks.benchmark().splitlines() if "in-distribution" in row]
    differences = [
        float(re.sub(r"\*|\[.*", "", row[-2]).replace("−", "-"))
        for row in rows
        if row[-2].strip("* –")
    ]
    assert len(differences) >= 3
    assert all(-6 < difference < 3 for difference in differences)

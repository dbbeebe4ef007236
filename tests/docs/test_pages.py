"""The README and the pages under docs/ run as they stand; every command and setting exists."""

import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import chdir
from itertools import pairwise
from pathlib import Path
from unittest import SkipTest

import click
import numpy as np
import pytest
import torch
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from fpga_flow.cli import cli, main
from fpga_flow.pipeline.resolve import resolve

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FIRST = "divqat run --preset smoke --out runs/smoke --until export"


def without_numbers(text: str) -> str:
    """Neither indentation, nor numbers: a training's digits differ between processors."""
    return re.sub(r"[\d.]+", "#", re.sub(r"^ +", "", text, flags=re.MULTILINE))


def lines(shell: str) -> list[list[str]]:
    """The arguments of each ``divqat`` line; another program's line is an error."""
    words = [shlex.split(line, comments=True) for line in shell.replace("\\\n", " ").splitlines()]
    assert all(line[0] == "divqat" for line in words if line), shell
    return [line[1:] for line in words if line]


def run(example: Example) -> None:
    for arguments in lines(example.parsed):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert not end.value.code, arguments


def save(example: Example) -> None:
    Path(f"{Path(example.path).stem}.toml").write_text(example.parsed, encoding="utf-8")


def compare(example: Example) -> None:
    """What the page shows was printed since it began."""
    example.namespace["printed"] += example.namespace["capsys"].readouterr().out
    assert without_numbers(example.parsed) in without_numbers(example.namespace["printed"])


def parse(example: Example) -> None:
    """A command's names, options, types and settings, without running it."""
    for arguments in lines(example.parsed):
        parse_line(arguments)
        resolve(
            None,
            dict(pairwise(arguments)).get("--preset"),
            [value for word, value in pairwise(arguments) if word == "--set"],
        )


def parse_line(arguments: list[str]) -> None:
    command: click.Command = cli
    context, rest = cli.make_context("divqat", list(arguments)), list(arguments)
    while isinstance(command, click.Group):
        word, command, rest = command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(word, list(rest), parent=context)


RUNNER = Sybil(
    [
        SkipParser(),
        PythonCodeBlockParser(),
        CodeBlockParser("sh", run),
        CodeBlockParser("text", compare),
        CodeBlockParser("toml", save),
    ]
)
COMMANDS = Sybil([CodeBlockParser("sh", parse)])


def with_blocks(*, slow: bool) -> list[Path]:
    """Pages with Python or commands; only those with slow ones."""
    mark = "if(quick" if slow else ""
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    return [
        page for page, text in texts.items() if re.search("```(python|sh)", text) and mark in text
    ]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with which most pages begin; it is up to date for them."""
    folder = tmp_path_factory.mktemp("docs")
    with chdir(folder), pytest.raises(SystemExit) as end:
        main(shlex.split(FIRST)[1:])
    assert not end.value.code
    return folder


@pytest.fixture
def place(exported: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder with that run, as the current one; random states are put back."""
    folder = tmp_path / "work"
    shutil.copytree(exported, folder)
    numbers, threads = np.random.get_state(), torch.get_num_threads()
    with chdir(folder), torch.random.fork_rng():
        yield folder
    np.random.set_state(numbers)
    torch.set_num_threads(threads)


def evaluate(page: Path, capsys: pytest.CaptureFixture[str], *, quick: bool) -> None:
    document = RUNNER.parse(page)
    document.namespace |= {"quick": quick, "capsys": capsys, "printed": "", "__name__": "page"}
    ran = 0
    for example in document.examples():
        try:
            example.evaluate()
            ran += 1
        except SkipTest:
            pass
    assert ran


@pytest.mark.slow  # runs the pages
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow) if page.name == "from-brevitas.md" else page
        for page in with_blocks(slow=False)  # from-brevitas: trains and exports three networks
    ],
    ids=name,
)
def test_a_page_runs(page: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(page, capsys, quick=True)


@pytest.mark.slow
@pytest.mark.finn
@pytest.mark.parametrize("page", with_blocks(slow=True), ids=name)
def test_a_whole_page_runs(page: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(page, capsys, quick=False)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_parse_and_settings_exist(page: Path) -> None:
    for example in COMMANDS.parse(page).examples():
        example.evaluate()


def test_a_misspelt_option_would_be_found() -> None:
    with pytest.raises(click.NoSuchOption):
        parse_line(["run", "--preset", "smoke", "--utnil", "export"])
    with pytest.raises(click.UsageError):
        parse_line(["atack", "runs/smoke"])


@pytest.mark.slow  # a pytest of its own, which attacks
def test_the_pytest_guide_passes_its_own_tests(exported: Path, pytester: pytest.Pytester) -> None:
    (example,) = (
        Sybil([CodeBlockParser("python", save)]).parse(DOCS / "guides/pytest.md").examples()
    )
    pytester.makepyfile(example.parsed)
    shutil.copytree(exported / "runs", pytester.path / "runs")
    # The hardware's test, which starts FINN, is left to test_testing.
    result = pytester.runpytest_subprocess("--strict-markers", "-k", "not hardware")
    result.assert_outcomes(passed=3, deselected=1)


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=name)
def test_links_of_the_front_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []

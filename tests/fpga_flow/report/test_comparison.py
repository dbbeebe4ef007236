"""Several runs on one page: what is compared, by what numbers, and what is kept apart."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_run import TOP, attack_rows, put
from test_report_page import Page

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.evaluation.statistics import difference
from fpga_flow.cli import main
from fpga_flow.report import collect, write, write_comparison
from fpga_flow.report.comparison import Group, NamedRun, groups

Maker = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("no_charts")
EVIL = "<script>alert(1)</script>"


def run_of(make_run: Maker, name: str, **properties: object) -> Path:
    """A run directory of that name, with results and without a page."""
    run = make_run(**properties)
    put(run / "config.toml", f"[run]\nname = '''{name}'''\n")
    write(collect(run), run / "report" / "results.json")
    return run


def on_engine(run: Path, engine: str) -> Path:
    """The same run, attacked through another engine."""
    for path in (run / "attack").glob("*.json"):
        put(path, json.loads(path.read_text()) | {"engine": engine})
    write(collect(run), run / "report" / "results.json")
    return run


@pytest.fixture
def two(make_run: Maker) -> list[NamedRun]:
    """A run and one whose DivQAT victims protect more."""
    return [
        NamedRun(name, name, collect(make_run(seeds=3, divqat_drop=drop)))
        for name, drop in (("weak", 0.0), ("strong", 0.2))
    ]


def test_differences_and_intervals_are_those_of_the_statistics(two: list[NamedRun]) -> None:
    (group,) = groups(two)
    (found,) = [
        change
        for change in group.changes
        if (change.ours, change.theirs) == ("strong: divqat", "weak: divqat")
        and change.quantity == "worst-case clone, 400 out-of-distribution queries"
    ]

    def soft(drop: float) -> dict[tuple[int, int], float]:
        """Soft responses used as they come are the best attack of the synthetic runs."""
        return {
            (row["victim_seed"], row["seed"]): row["clone_accuracy"]
            for row in attack_rows(3, drop)
            if (row["victim"], row["pool_kind"], row["budget"]) == ("divqat", "out", 400)
            and (row["oracle"], row["treatment"]) == ("soft", "soft")
        }

    assert found.difference == difference(soft(0.2), soft(0.0), 360)
    assert found.difference is not None
    assert found.difference.mean == pytest.approx(-0.2, abs=1e-9), "the noise is paired"
    assert found.excludes_zero
    assert found.remark == ""


def test_every_victim_meets_the_first_runs_plain_qat_and_its_like(two: list[NamedRun]) -> None:
    (group,) = groups(two)
    assert [(e.run, e.variant) for e in group.entries] == [
        (run, variant) for run in ("weak", "strong") for variant in TOP
    ]
    pairs = {(change.ours, change.theirs) for change in group.changes}
    assert pairs == {
        *((f"weak: {name}", "weak: qat") for name in ("float", "ptq", "divqat")),
        *((f"strong: {name}", "weak: qat") for name in TOP),
        *((f"strong: {name}", f"weak: {name}") for name in TOP),
    }


def test_other_data_and_other_engines_are_never_compared(make_run: Maker) -> None:
    paths = [run_of(make_run, name) for name in ("a", "b", "c", "d")]
    on_engine(paths[1], "rtl")
    dataset = json.loads((paths[2] / "train" / "dataset.json").read_text())
    put(paths[2] / "train" / "dataset.json", dataset | {"test": 100})
    write(collect(paths[2]), paths[2] / "report" / "results.json")
    found = write_comparison(paths, paths[0].parent / "out")
    assert [[run.label for run in group.runs] for group in found] == [["a", "d"], ["b"], ["c"]]
    for group in found:
        labels = {run.label for run in group.runs}
        assert group.changes
        for change in group.changes:
            assert {change.ours[0], change.theirs[0]} <= labels
    assert [group.engines for group in found] == [("integer",), ("rtl",), ("integer",)]
    page = Page((paths[0].parent / "out" / "index.html").read_text(encoding="utf-8"))
    assert "nothing is compared across groups" in "".join(page.text)
    assert len([name for name in page.tables if name.startswith("Victims on")]) == 3
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def changed(group: Group, ours: str, quantity: str) -> str:
    return next(c.remark for c in group.changes if (c.ours, c.quantity) == (ours, quantity))


def test_what_differs_between_two_attacks_is_said(make_run: Maker) -> None:
    first, second = make_run(seeds=3), make_run(seeds=2)
    for path in (second / "attack").glob("*.json"):
        row = json.loads(path.read_text())
        if row["treatment"] == "argmax":
            path.unlink()
        elif row["victim"] == "float":
            put(path, row | {"engine": "torch"})
    for path in (first / "attack").glob("*.json"):
        row = json.loads(path.read_text())
        if row["victim"] == "float":
            put(path, row | {"engine": "torch"})
    (group,) = groups([NamedRun(n, n, collect(r)) for n, r in (("a", first), ("b", second))])
    quantity = "worst-case clone, 400 in-distribution queries"
    assert changed(group, "a: float", quantity) == "other engines: torch and integer"
    ways, seeds = (
        "not attacked in the same ways",
        "not the same victim seeds; only common ones count",
    )
    assert changed(group, "b: qat", quantity) == f"{ways}; {seeds}"
    assert changed(group, "b: qat", "test accuracy") == seeds


def test_page_and_document_hold_the_same_numbers(make_run: Maker, tmp_path: Path) -> None:
    paths = [run_of(make_run, f"{name}{EVIL}", seeds=3) for name in "ab"]
    assert_out = tmp_path / "out"
    write_comparison(paths, assert_out)
    source = (assert_out / "index.html").read_text(encoding="utf-8")
    assert "<script" not in source
    page = Page(source)
    (group,) = json.loads((assert_out / "comparison.json").read_text())["groups"]
    (title,) = [name for name in page.values if name.startswith("Differences on")]
    stored = [row["difference"] for row in group["differences"]]
    assert [row[0] for row in page.values[title][1:]] == [row["mean"] for row in stored]
    (title,) = [name for name in page.values if name.startswith("Victims on")]
    clones = [
        {clone["pool_kind"]: clone["accuracy"] for clone in row["worst_case_clones"]}
        for row in group["victims"]
    ]
    assert [row[1:] for row in page.values[title][1:]] == [
        [row["accuracy"], best["out"], best["in"]]
        for row, best in zip(group["victims"], clones, strict=True)
    ]


def test_runs_of_one_name_are_told_apart_by_their_paths(make_run: Maker) -> None:
    paths = [run_of(make_run, "demo", attacked=False) for _ in range(2)]
    (group,) = write_comparison(paths, paths[0].parent / "out")
    assert [run.label for run in group.runs] == [f"demo ({path})" for path in paths]


def test_a_run_named_twice_is_refused(make_run: Maker) -> None:
    run = run_of(make_run, "demo", attacked=False)
    with pytest.raises(InputError, match="named twice"):
        write_comparison([run, run / "report" / "results.json"], run / "out")


@pytest.mark.slow  # trains and attacks for its page
def test_the_command_compares_and_says_what_it_needs(
    make_run: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(run_of(make_run, name, seeds=3, divqat_drop=drop))
             for name, drop in (("a", 0.0), ("b", 0.2))]  # fmt: skip

    def command(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(["report", *arguments])
        return int(str(ended.value.code))

    out = str(tmp_path / "out")
    assert command(*paths, "--out", out) == 0
    told = capsys.readouterr().out
    assert (
        "b: divqat against a: divqat, worst-case clone, 400 out-of-distribution queries: −20.0"
        in told
    )
    assert told.splitlines()[-1] == f"page {out}/index.html"
    assert command(*paths, "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["schema"] == 1
    for wrong in (paths, [paths[0], "--out", out], [*paths, "--out", out, "--claims"]):
        assert command(*wrong) == 2
        assert "--out" in capsys.readouterr().err
    assert command(paths[0], str(tmp_path), "--out", out) == 2
    assert "holds no results" in capsys.readouterr().err

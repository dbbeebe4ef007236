"""The frame of the speed benchmark: turns, records, publishing, the command."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.speed import runner, suite
from benchmarks.speed.environment import environment
from benchmarks.speed.runner import page, publish, read_records, run_suites
from benchmarks.speed.suite import Context, Entry, Line, Section, load_suite
from benchmarks.speed.timing import Spread, interleaved, ratio, shown_ratio
from divqat_brevitas.errors import InputError, ToolMissingError
from divqat_brevitas.files import read_json
from fpga_flow.cli import main


def test_contestants_take_turns_and_every_other_round_runs_backwards() -> None:
    order: list[str] = []
    ticks = iter(range(100))
    found = interleaved(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")},
        rounds=3,
        warmup=1,
        clock=lambda: float(next(ticks)),
    )
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert found["a"].samples == found["b"].samples == (1.0, 1.0, 1.0)


def test_no_round_is_refused() -> None:
    with pytest.raises(InputError, match="rounds=0"):
        interleaved({"a": lambda: None}, rounds=0)


def test_a_burst_of_load_changes_times_but_not_the_ratio() -> None:
    ours, theirs = Spread((1.0, 10.0, 1.0, 1.0)), Spread((2.0, 20.0, 2.0, 2.0))
    assert ratio(ours, theirs).samples == (0.5, 0.5, 0.5, 0.5)
    assert Spread((1.0, 2.0, 3.0, 4.0, 100.0)).record() == {
        "median": 3.0,
        "low": 2.0,
        "high": 4.0,
        "samples": [1.0, 2.0, 3.0, 4.0, 100.0],
    }
    assert Spread((7.0,)).quartiles == (7.0, 7.0)


def test_the_environment_says_what_was_measured_on_what() -> None:
    found = json.loads(json.dumps(environment(2)))
    assert found["threads"] == 2
    assert found["cpu"]["usable"] >= 1
    assert len(found["source"]) == 64
    assert {"torch", "numpy", "brevitas"} <= set(found["versions"])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Two suites in the registry's place; the second lacks a tool."""

    def measure(context: Context) -> dict:
        return {"rounds": context.rounds, "ratio": Spread((2.0,)).record()}

    def lacks(context: Context) -> dict:
        raise ToolMissingError("the abacus is missing")

    def section(record: dict) -> Section:
        value = shown_ratio(record["ratio"])
        return Section(
            "Sums", [f"{record['rounds']} rounds"], [Line("sum", "ours", value, "float")]
        )

    modules = {
        "good": SimpleNamespace(measure=measure, section=section),
        "poor": SimpleNamespace(measure=lacks, section=section),
    }
    entries = {name: Entry("none", f"about {name}") for name in modules}
    monkeypatch.setattr(suite, "SUITES", entries)
    monkeypatch.setattr(runner, "SUITES", entries)
    monkeypatch.setattr(runner, "load_suite", modules.__getitem__)
    return SimpleNamespace(**modules)


def test_a_suite_that_lacks_a_tool_leaves_the_others_their_records(
    fake: SimpleNamespace, tmp_path: Path
) -> None:
    records, lacking = run_suites([], tmp_path, Context(rounds=4, threads=2))
    assert lacking == {"poor": "the abacus is missing"}
    assert list(records) == ["good"]
    stored = read_json(tmp_path / "good.json")
    assert stored == records["good"]
    assert stored["result"]["rounds"] == stored["rounds"] == 4
    assert stored["environment"]["threads"] == 2
    assert not (tmp_path / "poor.json").exists()


def test_an_unknown_suite_is_refused_before_anything_is_measured(
    fake: SimpleNamespace, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="good"):
        run_suites(["good", "goud"], tmp_path, Context())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="speed suite"):
        load_suite("nothing-like-it")


def test_the_page_is_made_from_the_records_only(fake: SimpleNamespace, tmp_path: Path) -> None:
    run_suites(["good"], tmp_path, Context(rounds=4))
    (written,) = publish(tmp_path)
    assert written == tmp_path / "README.md"
    first = written.read_text()
    assert "| sum | ours | 2.00x (2.00 to 2.00) | float |" in first
    assert "## Sums\n\n4 rounds\n" in first
    fake.good.measure = None  # publishing measures nothing, and twice is once
    publish(tmp_path)
    assert written.read_text() == first


def test_what_must_not_be_published_is_refused(fake: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no speed record"):
        read_records(tmp_path)
    run_suites(["good"], tmp_path, Context(quick=True))
    with pytest.raises(InputError, match="quick run"):
        publish(tmp_path)
    (tmp_path / "good.json").write_text('{"schema": 0}')
    with pytest.raises(InputError, match="schema 1"):
        publish(tmp_path)


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["bench", "speed", *arguments])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_the_command_measures_and_leaves_with_3_where_a_tool_lacks(
    fake: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path), "--rounds", "2", "--json"]
    code, out, err = run(arguments, capsys)
    assert code == 3
    assert list(json.loads(out)["records"]) == ["good"]
    assert "not run: poor: the abacus is missing" in err
    assert run(["--publish", "--out", str(tmp_path)], capsys)[:2] == (
        0,
        f"{tmp_path / 'README.md'}\n",
    )


@pytest.mark.parametrize("arguments", [["--suite", "trainig"], ["--rounds", "0"]])
def test_bad_usage_is_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run([*arguments, "--out", str(tmp_path)], capsys)[0] == 2


def test_the_committed_page_is_that_of_the_committed_records() -> None:
    folder = Path(__file__).parents[3] / "benchmarks" / "speed"
    assert (folder / "README.md").read_text("utf-8") == page(read_records(folder))

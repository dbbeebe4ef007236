import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_run import attack_row, put, victim_rows

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import summarize
from fpga_flow.report import build_report, collect, read, validate

Maker = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("no_charts")


def minimal() -> dict[str, Any]:
    dataset = {"name": "digits", "train": 10, "test": 5, "classes": 10, "shape": [1, 8, 8]}
    lists: dict[str, Any] = {
        name: [] for name in ("victims", "equivalence", "attacks", "summary", "hardware")
    }
    return {"schema": 1, "dataset": dataset, **lists}


def test_every_stages_rows_end_up_in_results(make_run: Maker) -> None:
    run = make_run(seeds=3)
    results = collect(run)
    assert results.dataset.name == "digits"
    assert [row.variant for row in results.victims][::3] == ["float", "ptq", "qat", "divqat"]
    assert len(results.attacks) == len(list((run / "attack").glob("*.json")))
    assert [row.alarm_after_median for row in results.detection] == [7, 21, None]
    assert [row.p_value for row in results.ownership] == [3.5e-11, 1]
    assert {row.b for row in results.equivalence} == {"qonnx", "integer", "finn streamline"}
    assert [row.variant for row in results.hardware] == ["divqat", "qat"]
    assert set(results.layers) == {"ptq", "qat", "divqat"}
    assert results.estimates["qat"][2].lut == 2100
    assert results.run.name == "demo"
    assert results.run.versions == {"divqat": "0.1.0", "torch": "2.13.0"}
    assert len(results.training) == 3 * 3 * 10


def test_the_summary_is_the_evaluations(make_run: Maker) -> None:
    results = collect(make_run(seeds=3))
    summary = [row.model_dump() for row in results.summary]
    assert summary == summarize(results.attacks, results.victims)
    assert {row["pool_kind"] for row in summary} == {"in", "out"}


def test_written_results_are_read_back_equal(make_run: Maker) -> None:
    run = make_run()
    results = build_report(run)
    assert read(run / "report" / "results.json") == results
    raw = json.loads((run / "report" / "results.json").read_text())
    assert raw["schema"] == 1
    assert raw["victims"][0]["parameters"] == 12345, "extra fields are kept"


@pytest.mark.slow  # trains and attacks for its page
def test_the_same_run_gives_the_same_files(make_run: Maker) -> None:
    run = make_run()
    build_report(run)
    files = [run / "report" / name for name in ("results.json", "index.html")]
    before = [path.read_bytes() for path in files]
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"]["train"]["seconds"] = 99.0
    manifest["stages"]["report"] = {"status": "running", "inputs": {}}
    put(run / "manifest.json", manifest)
    build_report(run)
    assert [path.read_bytes() for path in files] == before


def test_without_finn_the_rest_is_there_and_the_reason_too(make_run: Maker) -> None:
    results = collect(make_run(finn=False))
    assert (results.hardware, results.estimates) == ([], {})
    assert results.run.stages["compile"].status == "missing-tool"
    assert "finn-plus is not installed" in (results.run.stages["compile"].reason or "")
    assert results.attacks


def test_only_train_is_enough(make_run: Maker, tmp_path: Path) -> None:
    run = make_run()
    bare = tmp_path / "bare"
    for name in ("dataset.json", "victims.json"):
        put(bare / "train" / name, (run / "train" / name).read_text())
    results = collect(bare)
    assert results.run.name == "bare"
    assert results.attacks == []
    assert results.summary == []


def test_a_metrics_file_cut_short_by_a_kill_is_read_up_to_there(make_run: Maker) -> None:
    run = make_run()
    with (run / "train" / "metrics.jsonl").open("a") as f:
        f.write('{"variant": "qat", "epo')
    assert len(collect(run).training) == 30


def test_nan_becomes_null(make_run: Maker) -> None:
    run = make_run()
    put(run / "train" / "metrics.jsonl", '{"variant": "qat", "epoch": 1, "loss": NaN}\n')
    build_report(run)
    raw = json.loads((run / "report" / "results.json").read_text())
    assert raw["training"] == [{"variant": "qat", "epoch": 1, "loss": None}]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("train/victims.json", "{", "victims.json is not valid JSON"),
        ("train/victims.json", "3", "victims.json must hold a list"),
        ("train/victims.json", [victim_rows(1)[0] | {"accuracy": 97.3}], "row 0: accuracy"),
        ("train/victims.json", [victim_rows(1)[0] | {"accuracy": "0.9"}], "row 0: accuracy"),
        ("train/victims.json", [{"variant": "qat"}], "row 0: bits"),
        ("train/dataset.json", {"name": "digits"}, "dataset.json: train"),
        ("attack/0000.json", attack_row(oracle="psychic"), "row 0: oracle"),
        ("attack/0000.json", attack_row(clone_accuracy=-0.1), "row 0: clone_accuracy"),
        ("simulate/equivalence.json", [{"variant": "qat"}], "equivalence.json, row 0: a"),
        ("simulate/accuracy.json", [1], "accuracy.json must map"),
        ("compile/qat/hardware.json", [{}], "hardware.json, row 0: variant"),
        ("compile/qat/estimates.json", 4, "estimates.json must hold one row a layer"),
        ("manifest.json", {"stages": {"train": {"status": "splendid"}}}, "train: status"),
        ("train/metrics.jsonl", "nonsense\n{}\n", "metrics.jsonl, line 1"),
    ],
)
def test_a_damaged_file_is_named_with_its_field(
    make_run: Maker, file: str, content: object, said: str
) -> None:
    run = make_run()
    put(run / file, content)
    with pytest.raises(InputError, match="(?s)" + said.replace(".", r"\.")):
        collect(run)


def test_nothing_to_report_yet_says_which_command_comes_first(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run directory"):
        collect(tmp_path / "nowhere")
    with pytest.raises(InputError, match="divqat train"):
        collect(tmp_path)


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.5])
def test_another_schema_is_refused(version: object) -> None:
    with pytest.raises(InputError, match="reads schema 1"):
        validate(minimal() | {"schema": version})


@pytest.mark.parametrize("name", ["dataset", "victims", "attacks", "summary", "hardware"])
def test_a_missing_part_of_the_schema_is_refused(name: str) -> None:
    document = minimal()
    del document[name]
    with pytest.raises(InputError, match=name):
        validate(document)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def outcome(document: Any) -> str:
    try:
        return f"schema {validate(document).schema_version}"
    except InputError as e:
        return str(e)


@given(json_values, st.sampled_from(sorted(minimal())))
def test_any_json_is_accepted_or_refused_in_words(value: Any, field: str) -> None:
    assert "results.json" in outcome([value])
    said = outcome(minimal() | {field: value})
    assert said == "schema 1" or "results.json" in said

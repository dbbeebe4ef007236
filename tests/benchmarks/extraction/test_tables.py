"""What is made from experiments: results, tables, figures, the README's blocks."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import fixture_experiments
import numpy as np
import pytest

from benchmarks.extraction.detection import Rejections, detection_rows
from benchmarks.extraction.plan import plan
from benchmarks.extraction.plots import write_plots
from benchmarks.extraction.publish import leaderboard_page, publish, readme_blocks, results_page
from benchmarks.extraction.records import (
    ExperimentRecord,
    ExperimentStore,
    read_experiments,
    write_experiments,
    write_gzip,
)
from benchmarks.extraction.results import (
    DETECTION,
    documents,
    kept_victims,
    write_documents,
    write_summary,
)
from benchmarks.extraction.scenarios import MINI
from benchmarks.extraction.tables import (
    best_attackers,
    every_attacker,
    headline_table,
    main_table,
    utility_table,
)
from benchmarks.pages import block_of, marks, rewrite_block
from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json, write_json
from fpga_flow.report import read
from fpga_flow.report.claims import Claim, claims
from fpga_flow.report.run_charts import budget_curves
from fpga_flow.report.schema import AttackRow, Results

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "benchmarks" / "extraction"
BEGIN, END = marks("results")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fixture_experiments.write(tmp_path_factory.mktemp("extraction"))


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Results]:
    return documents(read_experiments(folder), kept_victims(folder))


def line(lines: list[str], *starts: str) -> list[str]:
    (match,) = (row for row in lines if row.startswith(f"| {' | '.join(starts)} |"))
    return [experiment.strip() for experiment in match.strip("|").split("|")]


def test_results_are_schema_1_with_one_row_a_experiment_and_victim(
    found: dict[str, Results], folder: Path, tmp_path: Path
) -> None:
    assert list(found) == ["digits"]
    (path,) = write_documents(found, tmp_path)
    again = read(path)
    assert path.name == "results-digits.json"
    assert len(again.attacks) == len(read_experiments(folder))
    assert [row.variant for row in again.victims[::3]] == [
        "float",
        "qat",
        "divqat-literal",
        "divqat-nasty",
    ]
    assert again.victims[0].ece == 0.03
    assert (again.dataset.train or 0) > (again.dataset.test or 0) > 0  # digits are on any machine
    # The file says how many test images there were, which the intervals know then.
    counted = found["digits"].model_copy(update={"dataset": again.dataset})
    assert claims(again) == claims(counted)


def test_the_summary_has_a_row_a_group_with_its_data_set(
    found: dict[str, Results], tmp_path: Path
) -> None:
    summary = read_json(write_summary(found, tmp_path))
    assert summary["schema"] == 1
    assert (summary["detection"], summary["ownership"]) == ([], [])
    rows = [row.model_dump(mode="json") for row in found["digits"].summary]
    assert summary["rows"] == [{"dataset": "digits", **row} for row in rows]


def test_rows_of_the_tripwire_are_in_the_summary(found: dict[str, Results], tmp_path: Path) -> None:
    few, none = np.arange(500) % 250 == 0, np.zeros(500, np.bool_)
    labels, pool = np.arange(500) % 5, np.arange(100) % 10 != 0
    bits = Rejections((few, labels), (few, labels), none, none, {"noise": pool}, (pool, 50))
    rows = detection_rows("divqat-reject", bits, users=200)
    by_evasion = {row["evasion"]: row for row in rows if "evasion" in row}

    assert by_evasion["none"]["alarm_after_median"] <= 12
    assert (
        by_evasion["none"]["alarm_after_median"] < by_evasion["trusted first"]["alarm_after_median"]
    )
    assert by_evasion["padded with one image, repeated"]["alarm_after_median"] is None
    assert by_evasion["padded with one image, repeated"]["queries_per_image"] > 2
    assert by_evasion["avoiding, learns on the way"]["alarm_after_median"] <= 20
    assert all(row["users"] == 200 for row in rows)
    write_json(tmp_path / DETECTION, {"schema": 1, "rows": rows})
    assert read_json(write_summary(found, tmp_path))["detection"] == rows

    shared = replace(bits, validation=(labels == 0, labels))
    assert detection_rows("divqat-decoy", shared, users=200) == []


def test_the_main_table_says_what_the_experiments_say(found: dict[str, Results]) -> None:
    lines = main_table(found["digits"])
    nasty = line(lines, "out-of-distribution, 8,000", "divqat-nasty")
    rows = [
        row.clone_accuracy
        for row in found["digits"].attacks
        if (row.victim, row.pool_kind, row.budget, row.oracle, row.treatment)
        == ("divqat-nasty", "out", 8000, "soft", "soft")
        and row.defence == "none"
    ]
    assert nasty[2] == "87.0 ± 0.2 (costs 4.0)"
    assert nasty[3].startswith(f"{100 * sum(rows) / 3:.1f} ± ")
    assert nasty[5] != nasty[4]  # the attacker with labels only is better
    assert nasty[6].startswith("**−")
    best = line(best_attackers(found["digits"]), "out-of-distribution, 8,000", "divqat-nasty")
    assert best[3] == "knockoff-random / soft / wallpapers / vgg-small on top1"
    plain = line(lines, "out-of-distribution, 8,000", "qat")
    assert plain[6] == "–"
    # Not bold where the interval holds zero.
    literal = line(lines, "in-distribution, 8,000", "divqat-literal")[6]
    assert re.fullmatch(r"[+−]?\d\.\d \[−\d\.\d, \+\d\.\d\]", literal)


def test_equal_cost_composition_and_utility_are_on_the_page(found: dict[str, Results]) -> None:
    text = results_page(found, [])
    row = line(
        text.splitlines(), "reverse-sigmoid:0.5", "out-of-distribution, 8,000", "divqat-nasty"
    )
    assert row[3] == "0.690 ± 0.000"
    # Of plain QAT's two strengths the one that costs as much.
    assert row[7] == "**−8.0 [−8.0, −8.0]** with reverse-sigmoid:0.9"
    utility = line(utility_table(found["digits"]), "divqat-nasty")
    assert utility[3:] == ["0.900 ± 0.000", "90.0 ± 0.0", "60.0 ± 0.0", "65.0 ± 0.0", "1.0 ± 0.0"]


def test_every_attacker_has_a_row_with_its_mean(found: dict[str, Results]) -> None:
    frame = every_attacker(found)
    own = frame.query("victim == 'qat' and budget == 8000 and oracle == 'top1'")
    rows = [
        r.clone_accuracy
        for r in found["digits"].attacks
        if (r.victim, r.budget, r.oracle, r.pool_kind) == ("qat", 8000, "top1", "in")
    ]
    (mean,) = own[own["pool_kind"] == "in"]["mean"]
    assert mean == pytest.approx(sum(rows) / 3, abs=1e-4)  # rounded to 4 digits
    assert frame["count"].sum() == len(found["digits"].attacks)


def test_packing_keeps_what_is_planned_and_what_is_retired(tmp_path: Path) -> None:
    planned = plan("mini")[:3]
    first, second, third = (fixture_experiments.of_spec(spec) for spec in planned)
    retired = first.model_copy(update={"name": "retired", "retired": True})
    unplanned = first.model_copy(update={"name": "unplanned"})
    stale = second.model_copy(update={"key": "of other settings"})
    write_experiments(tmp_path, [first, retired, unplanned, stale])
    store = ExperimentStore(tmp_path, tmp_path / "work")
    store.put(planned[2], third)
    assert store.pack(planned) == 1
    assert read_experiments(tmp_path) == sorted([first, third, retired], key=lambda r: r.name)
    assert not list((tmp_path / "work" / "experiments").iterdir())
    before = (tmp_path / "experiments.jsonl.gz").read_bytes()
    assert ExperimentStore(tmp_path, tmp_path / "work").pack(planned) == 0
    assert (tmp_path / "experiments.jsonl.gz").read_bytes() == before
    # Run again: the new row replaces the old one.
    store.put(planned[0], first.model_copy(update={"clone_accuracy": 0.25}))
    assert store.pack(planned) == 1
    again = ExperimentStore(tmp_path, tmp_path / "work").get(planned[0])
    assert again is not None
    assert again.clone_accuracy == 0.25


def test_a_gated_decoy_is_a_victim_of_its_own() -> None:
    soft, label = fixture_experiments.ATTACKERS[0], fixture_experiments.ATTACKERS[2]
    experiments = []
    for seed in fixture_experiments.SEEDS:
        experiments += [
            fixture_experiments.experiment("divqat-nasty", seed, soft, 500, 0.5),
            fixture_experiments.experiment("divqat-nasty", seed, soft, 500, 0.2, "gate:0:0.05"),
            fixture_experiments.experiment("divqat-nasty", seed, label, 500, 0.3),
        ]
    (results,) = documents(experiments).values()
    values = {
        (row.victim, row.oracle): row.clone_accuracy
        for row in results.attacks
        if row.victim_seed == 0
    }
    # Labels only pass the gate as they are: the same clone counts for both.
    assert values == {
        ("divqat-nasty", "soft"): 0.5,
        ("divqat-nasty", "top1"): 0.3,
        ("divqat-nasty+gate", "soft"): 0.2,
        ("divqat-nasty+gate", "top1"): 0.3,
    }
    assert {row.defence for row in results.attacks} == {"none"}
    assert {row.preset for row in results.victims} == {"nasty"}


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no experiments"):
        read_experiments(tmp_path)
    write_experiments(tmp_path, [])
    file = tmp_path / "experiments.jsonl.gz"
    file.write_bytes(b"no gzip")
    with pytest.raises(InputError, match="is damaged"):
        read_experiments(tmp_path)
    write_gzip(file, "{}\n")
    with pytest.raises(InputError, match="a row that is no experiment"):
        read_experiments(tmp_path)


def test_networks_of_one_data_set_get_documents_of_their_own(folder: Path) -> None:
    experiments = read_experiments(folder)
    experiments += [
        record.model_copy(update={"bits": "w2a2"})
        for record in experiments
        if record.victim == "qat" and record.budget == 500
    ]
    found = documents(experiments)
    assert list(found) == ["digits", "digits.digits-cnn.w2a2"]
    assert {row.variant for row in found["digits.digits-cnn.w2a2"].victims} == {"float", "qat"}


def test_plots_are_svg_with_text(tmp_path: Path) -> None:
    decoy = MINI[0].experiment("divqat-decoy").label
    soft, labels = fixture_experiments.ATTACKERS[0], fixture_experiments.ATTACKERS[2]
    experiments = [
        fixture_experiments.experiment(victim, seed, attacker, budget, 0.5, defence)
        for seed in fixture_experiments.SEEDS
        for budget in (500, 8000)
        for victim, attacker, defence in (
            ("qat", soft, "none"),
            ("qat", labels, "none"),
            (decoy, soft, "gate:0:0.05"),
        )
    ]
    results = documents(experiments)
    paths = write_plots(results, MINI, tmp_path)
    assert [path.name for path in paths] == ["clones.svg", "budgets.svg"]
    for path in paths:
        text = path.read_text("utf-8")
        assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert "decoy + label-only fallback" in text
        before = path.read_bytes()
        write_plots(results, MINI, tmp_path)
        assert path.read_bytes() == before
    row = line(headline_table(results, MINI), "digits", "out-of-distribution, 8,000")
    assert row[2:] == ["50.0 ± 0.0", "50.0 ± 0.0 (+0.0 †)", "50.0 ± 0.0", "1.0 points"]


def test_budget_curves_compare_like_with_like(found: dict[str, Results]) -> None:
    whole = found["digits"]

    def curves(attacks: list[AttackRow]) -> dict[str, list[str]]:
        (drawn,) = budget_curves(whole.model_copy(update={"attacks": attacks}))
        return dict(zip(drawn.head, zip(*drawn.rows, strict=True), strict=True))

    rows = [r for r in whole.attacks if r.pool_kind == "out" and r.defence == "none"]
    most = max(r.budget for r in rows)
    before = curves(rows)
    assert len(before["query budget"]) > 1
    # A better attacker at one budget only does not bend the curve.
    better = [r.model_copy(update={"attack": "new", "clone_accuracy": 0.99}) for r in rows]
    assert curves([*rows, *(r for r in better if r.budget == most)]) == before
    assert curves([*rows, *better]) != before
    # Labels only at the smaller budgets are no curve of what soft answers give away.
    nasty = next(name for name in before if name.startswith("divqat-nasty"))
    labels = [
        r for r in rows if (r.victim, r.oracle) != ("divqat-nasty", "soft") or r.budget == most
    ]
    assert any(r.victim == "divqat-nasty" and r.budget < most for r in labels)
    assert set(curves(labels)) == set(before) - {nasty}


def test_blocks_go_between_their_marks_only(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n", encoding="utf-8")
    rewrite_block(readme, "results", "new\n")
    text = readme.read_text("utf-8")
    assert text == f"above\n{BEGIN}\nnew\n{END}\nbelow\n"
    rewrite_block(readme, "results", "new")
    assert readme.read_text("utf-8") == text
    for broken in ("none", f"{END} {BEGIN}", f"{BEGIN} {END} {BEGIN}"):
        readme.write_text(broken, encoding="utf-8")
        with pytest.raises(InputError, match="once each"):
            rewrite_block(readme, "results", "x")


def test_publishing_writes_everything_beside_the_experiments(tmp_path: Path) -> None:
    spec = plan("mini")[0]
    ExperimentStore(tmp_path, tmp_path / "work").put(spec, fixture_experiments.of_spec(spec))
    written = publish(tmp_path, tmp_path / "work", [spec])
    assert all(path.is_file() for path in written)
    assert {path.name for path in written} == {
        "results.md",
        "leaderboard.md",
        "summary.json",
        "attackers.csv",
        "results-digits.json",
    }


@pytest.mark.slow  # trains and attacks
def test_what_is_committed_is_what_the_experiments_give(tmp_path: Path) -> None:
    """Pages, README and summary are those of the committed experiments; all are of the plan."""
    experiments = read_experiments(COMMITTED)
    planned = {spec.name: spec.key for spec in plan("compact")}
    assert all(e.retired or planned.get(e.name) == e.key for e in experiments)
    found = documents(experiments, kept_victims(COMMITTED))
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    assert page == results_page(found, plan("compact"))
    assert (ROOT / "docs" / "leaderboard.md").read_text("utf-8") == leaderboard_page(found)
    readme = (ROOT / "README.md").read_text("utf-8")
    for name, text in readme_blocks(found).items():
        assert block_of(readme, name) == text
    rows = read_json(write_summary(found, tmp_path))["rows"]
    assert read_json(COMMITTED / "summary.json")["rows"] == rows


SPEC = "reverse-sigmoid@0.2"
GATED = f"gate:0:0.05+{SPEC}"
OURS = "divqat-literal"  # within a point of plain QAT's accuracy
SOFT, ARGMAX = fixture_experiments.ATTACKERS[:2]


def experiments(
    victim: str, defence: str, soft: float, argmax: float, reached: float = 0.2, **changed: Any
) -> list[ExperimentRecord]:
    """Both attackers at three seeds, the cost as an experiment records it."""
    found = {"spec": "reverse-sigmoid:0.4", "strength": 0.4, "target": 0.2, "shortfall": ""}
    paid = {"l1": reached + 0.01, "labels_changed": 0.0, "pool": {"l1": 0.5}}
    paid["found"] = found | {"cost": {"l1": reached, "labels_changed": 0.0}}
    wobble = (0.0, 0.004, -0.004)
    return [
        fixture_experiments.experiment(
            victim, seed, attacker, 8000, value + wobble[seed], defence
        ).model_copy(update={"defence_cost": paid} | changed)
        for attacker, value in ((SOFT, soft), (ARGMAX, argmax))
        for seed in fixture_experiments.SEEDS
    ]


def results(*groups: list[ExperimentRecord]) -> Results:
    (found,) = documents([experiment for group in groups for experiment in group]).values()
    return found


def combined(found: Results) -> dict[tuple[str, str | None], Claim]:
    return {(c.victim, c.answers): c for c in claims(found) if c.claim == "combination improves"}


PLAIN = experiments("qat", SPEC, 0.70, 0.72)
HOLDS = experiments(OURS, SPEC, 0.60, 0.70), experiments(OURS, GATED, 0.50, 0.52)


def test_the_claim_holds_with_and_without_the_gate() -> None:
    found = combined(results(PLAIN, *HOLDS))
    names = [f"{OURS} + {SPEC}", f"{OURS}+gate + {SPEC}"]
    assert list(found) == [(name, answers) for name in names for answers in ("soft family", "all")]
    for claim in found.values():
        assert (claim.against, claim.verdict) == (f"qat + {SPEC}", "supported")
    assert found[names[0], "all"].difference.mean == pytest.approx(-0.02)
    assert found[names[1], "all"].difference.mean == pytest.approx(-0.20)


def test_an_attacker_that_hardens_answers_undoes_the_claim() -> None:
    """Worse clones of the answers as they come are no gain if hardening brings them back."""
    found = combined(results(PLAIN, experiments(OURS, SPEC, 0.40, 0.72)))
    assert {claim.verdict for claim in found.values()} == {"not supported"}


def test_no_claim_at_unequal_cost() -> None:
    weaker = results(experiments("qat", SPEC, 0.70, 0.72, reached=0.12), HOLDS[0])
    for claim in combined(weaker).values():
        assert claim.verdict == "undecided"
        assert claim.reason.startswith("the defences cost unequally: an ℓ1 of 0.2, and of 0.12")


def test_no_claim_while_an_attacker_of_plain_qat_has_not_met_the_victim() -> None:
    recovery = [
        experiment.model_copy(
            update={"treatment": "recovery", "name": f"{experiment.name}r", "clone_accuracy": 0.8}
        )
        for experiment in PLAIN[:3]
    ]
    found = combined(results([*PLAIN, *recovery], *HOLDS))
    for claim in found.values():
        assert claim.verdict == "undecided"
        assert "recovery" in claim.reason
        assert claim.baseline_clone_accuracy == pytest.approx(0.72)  # of the attackers in common

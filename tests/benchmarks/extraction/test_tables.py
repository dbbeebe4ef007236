"""What is made from cells: results, page, plots, the README's block."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import fixture_cells
import pytest

from benchmarks.extraction.collect import (
    documents,
    keep_victims,
    read_cells,
    read_victims,
    write_documents,
)
from benchmarks.extraction.plan import plan
from benchmarks.extraction.plots import write_plots
from benchmarks.extraction.publish import publish
from benchmarks.extraction.tables import block, main_table, page
from benchmarks.marks import marks, rewrite_block
from divqat_brevitas.errors import InputError
from fpga_flow.report import read
from fpga_flow.report.claims import claims
from fpga_flow.report.frontier import budget_curves, frontiers
from fpga_flow.report.schema import AttackRow, Results

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "benchmarks" / "extraction"
BEGIN, END = marks("extraction")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fixture_cells.write(tmp_path_factory.mktemp("extraction"))


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Results]:
    return documents(read_cells(folder), read_victims(folder))


def line(lines: list[str], *starts: str) -> list[str]:
    (match,) = (row for row in lines if row.startswith(f"| {' | '.join(starts)} |"))
    return [cell.strip() for cell in match.strip("|").split("|")]


def test_results_are_schema_1_with_one_row_a_cell_and_victim(
    found: dict[str, Results], folder: Path, tmp_path: Path
) -> None:
    assert list(found) == ["digits"]
    (path,) = write_documents(found, tmp_path)
    again = read(path)
    assert path.name == "results-digits.json"
    assert len(again.attacks) == len(list((folder / "cells").glob("*.json")))
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


def test_counts_of_images_stay_where_the_images_are_not_here(
    found: dict[str, Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_documents(found, tmp_path)
    before = read(path).dataset

    def missing(*_: object) -> None:
        raise InputError("not here")

    monkeypatch.setattr("benchmarks.extraction.collect.load", missing)
    write_documents(found, tmp_path)
    assert read(path).dataset == before
    path.unlink()
    write_documents(found, tmp_path)
    assert read(path).dataset.test is None


def test_the_main_table_says_what_the_cells_say(found: dict[str, Results]) -> None:
    lines = main_table(found["digits"])
    nasty = line(lines, "out-of-distribution, 8,000", "divqat-nasty")
    rows = [
        row.clone_accuracy
        for row in found["digits"].attacks
        if (row.victim, row.pool_kind, row.budget, row.oracle, row.treatment)
        == ("divqat-nasty", "out", 8000, "soft", "soft")
        and row.defence == "none"
    ]
    assert nasty[2] == "87.0 ± 0.2"
    assert nasty[3] == "costs 4.0"
    assert nasty[4].startswith(f"{100 * sum(rows) / 3:.1f} ± ")
    assert nasty[8] != nasty[5]  # the top-1 thief is better, and named
    assert nasty[9] == "knockoff-random / soft / wallpapers / vgg-small on top1"
    assert nasty[7].startswith("**−")
    plain = line(lines, "out-of-distribution, 8,000", "qat")
    assert (plain[3], plain[7], plain[10]) == ("–", "–", "–")
    # Not bold where the interval holds zero.
    literal = line(lines, "in-distribution, 8,000", "divqat-literal")[7]
    assert re.fullmatch(r"[+−]?\d\.\d \[−\d\.\d, \+\d\.\d\]", literal)


def test_equal_cost_composition_and_utility_are_on_the_page(found: dict[str, Results]) -> None:
    text = page(found)
    row = line(
        text.splitlines(), "reverse-sigmoid:0.5", "out-of-distribution, 8,000", "divqat-nasty"
    )
    assert row[3] == "0.690 ± 0.000"
    # Of plain QAT's two strengths the one that costs as much.
    assert row[6] == row[9] == "**−8.0 [−8.0, −8.0]** with reverse-sigmoid:0.9"
    assert "| 0.900 ± 0.000 | 90.0 ± 0.0 | 60.0 ± 0.0 | 65.0 ± 0.0 | 1.0 ± 0.0 |" in text


def test_the_page_says_what_was_planned_and_not_run(found: dict[str, Results]) -> None:
    planned = plan("mini")
    text = page(found, planned)
    assert f"0 of {len(planned)} planned cells are here." in text
    assert "| digits | knockoff-random |" in text


def test_cells_of_other_settings_are_left_out(folder: Path, tmp_path: Path) -> None:
    spec = plan("mini")[0]
    cell = fixture_cells.cell("qat", 0, fixture_cells.THIEVES[0], 500, 0.5)
    for name, key in (("old", "0"), (spec.name, "0"), (plan("mini")[1].name, plan("mini")[1].key)):
        path = tmp_path / "cells" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(cell | {"name": name, "key": key}), encoding="utf-8")
    kept = [cell["name"] for cell in read_cells(tmp_path, plan("mini"))]
    assert kept == sorted(["old", plan("mini")[1].name])
    assert len(read_cells(tmp_path)) == 3


def test_a_gated_decoy_is_a_victim_of_its_own() -> None:
    soft, label = fixture_cells.THIEVES[0], fixture_cells.THIEVES[2]
    cells = []
    for seed in fixture_cells.SEEDS:
        cells += [
            fixture_cells.cell("divqat-nasty", seed, soft, 500, 0.5),
            fixture_cells.cell("divqat-nasty", seed, soft, 500, 0.2, "gate:0:0.05"),
            fixture_cells.cell("divqat-nasty", seed, label, 500, 0.3),
        ]
    (results,) = documents(cells).values()
    values = {
        (row.victim, row.oracle): row.clone_accuracy
        for row in results.attacks
        if row.victim_seed == 0
    }
    # Labels alone pass the gate as they are: the same clone counts for both.
    assert values == {
        ("divqat-nasty", "soft"): 0.5,
        ("divqat-nasty", "top1"): 0.3,
        ("divqat-nasty+gate", "soft"): 0.2,
        ("divqat-nasty+gate", "top1"): 0.3,
    }
    assert {row.defence for row in results.attacks} == {"none"}
    assert {row.preset for row in results.victims} == {"nasty"}


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no cells"):
        read_cells(tmp_path)
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "a.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.json is no cell"):
        read_cells(tmp_path)


def test_victims_are_known_from_cells_alone(tmp_path: Path) -> None:
    folder = fixture_cells.write(tmp_path, victims=False)
    results = documents(read_cells(folder))["digits"]
    assert results.victims[-1].accuracy == 0.872
    assert results.victims[-1].ece is None
    assert "Not run." in page({"digits": results})  # utility


def test_records_of_victims_are_kept_with_the_accuracies_of_their_history(tmp_path: Path) -> None:
    folder = fixture_cells.write(tmp_path / "out", victims=False)
    record = fixture_cells.record("qat", 1)
    path = tmp_path / "work" / "victims" / f"{record['name']}-{'k' * 12}" / "victim.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record), encoding="utf-8")
    assert keep_victims(folder, tmp_path / "work") == 1
    (kept,) = read_victims(folder)
    assert kept == record | {"history": [{"epoch": 1}]}


def test_networks_of_one_data_set_get_documents_of_their_own(folder: Path) -> None:
    cells = read_cells(folder)
    cells += [c | {"bits": "w2a2"} for c in cells if c["victim"] == "qat" and c["budget"] == 500]
    found = documents(cells)
    assert list(found) == ["digits", "digits.digits-cnn.w2a2"]
    assert {row.variant for row in found["digits.digits-cnn.w2a2"].victims} == {"float", "qat"}


def test_frontier_names_every_variant_and_thief(found: dict[str, Results]) -> None:
    out, inside, free = frontiers(found["digits"])
    # What all thieves share is said once.
    assert "Worst-case attack: knockoff-random / soft / wallpapers / vgg-small" in out.svg
    assert "divqat-nasty: on top1" in out.svg
    assert "float: " in inside.svg
    assert "float: " not in free.svg  # no data-free thief robbed it
    assert "Worst-case attack: dfme" in free.svg


def test_plots_are_svg_with_text_in_both_themes(found: dict[str, Results], tmp_path: Path) -> None:
    frontier, budget = write_plots(found, tmp_path)
    assert (frontier.name, budget.name) == ("frontier-digits.svg", "budget-digits.svg")
    for path in (frontier, budget):
        text = path.read_text("utf-8")
        assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert "prefers-color-scheme: dark" in text
        assert not set(re.findall(r"var\((--[\w-]+)\)", text)) - set(
            re.findall(r"(--[\w-]+):", text)
        )
    assert "chance" in budget.read_text("utf-8")


def test_budget_curves_compare_like_with_like(found: dict[str, Results], tmp_path: Path) -> None:
    whole = found["digits"]

    def curves(attacks: list[AttackRow]) -> dict[str, list[str]]:
        (drawn,) = budget_curves(whole.model_copy(update={"attacks": attacks}))
        assert drawn.numbers is not None
        return dict(zip(drawn.numbers.head, zip(*drawn.numbers.rows, strict=True), strict=True))

    rows = [r for r in whole.attacks if r.pool_kind == "out" and r.defence == "none"]
    most = max(r.budget for r in rows)
    before = curves(rows)
    assert len(before["query budget"]) > 1
    # A better thief at one budget alone does not bend the curve.
    better = [r.model_copy(update={"attack": "new", "clone_accuracy": 0.99}) for r in rows]
    assert curves([*rows, *(r for r in better if r.budget == most)]) == before
    assert curves([*rows, *better]) != before
    # Labels alone at the smaller budgets are no curve of what soft answers give away.
    nasty = next(name for name in before if name.startswith("divqat-nasty"))
    labels = [
        r for r in rows if (r.victim, r.oracle) != ("divqat-nasty", "soft") or r.budget == most
    ]
    assert any(r.victim == "divqat-nasty" and r.budget < most for r in labels)
    assert set(curves(labels)) == set(before) - {nasty}
    # One budget is no curve: no chart, no line on the page, and no file of an earlier one.
    single = whole.model_copy(update={"attacks": [r for r in rows if r.budget == most]})
    (tmp_path / "budget-digits.svg").write_text("old", encoding="utf-8")
    assert [path.name for path in write_plots({"digits": single}, tmp_path)] == [
        "frontier-digits.svg"
    ]
    assert not (tmp_path / "budget-digits.svg").exists()
    assert "budget-digits.svg" not in page({"digits": single})
    assert "budget-digits.svg" in page(found)


def test_block_goes_between_the_marks_only(found: dict[str, Results], tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n", encoding="utf-8")
    rewrite_block(readme, "extraction", block(found))
    text = readme.read_text("utf-8")
    assert text == f"above\n{BEGIN}\n{block(found)}\n{END}\nbelow\n"
    assert "87.0 ± 0.2 (costs 4.0)" in text
    rewrite_block(readme, "extraction", block(found))
    assert readme.read_text("utf-8") == text
    for broken in ("none", f"{END} {BEGIN}", f"{BEGIN} {END} {BEGIN}"):
        readme.write_text(broken, encoding="utf-8")
        with pytest.raises(InputError, match="once each"):
            rewrite_block(readme, "extraction", "x")


def test_the_block_has_no_victim_of_fewer_seeds_than_are_needed(found: dict[str, Results]) -> None:
    whole = found["digits"]

    def shown(attacks: list[AttackRow]) -> set[str]:
        lines = block({"digits": whole.model_copy(update={"attacks": attacks})}).splitlines()
        return {line.split(" | ")[2] for line in lines if line.startswith("| digits")}

    assert {"qat", "divqat-nasty"} <= shown(whole.attacks)
    fewer = [r for r in whole.attacks if r.victim != "divqat-nasty" or r.victim_seed == 0]
    assert shown(fewer) == shown(whole.attacks) - {"divqat-nasty"}
    # Where no victim has so many, all are shown.
    assert shown([r for r in whole.attacks if r.victim_seed == 0]) == shown(whole.attacks)


def test_what_is_committed_is_what_its_cells_give(folder: Path) -> None:
    """Of the committed benchmark, and of made-up cells where none is committed yet."""
    committed = any((COMMITTED / "cells").glob("*.json"))
    published = (ROOT / "docs/results.md").read_text("utf-8")
    planned = plan("compact") if committed else None
    if not committed:
        publish(folder)
    home = COMMITTED if committed else folder
    found = documents(read_cells(home, planned), read_victims(home))
    assert (home / "README.md").read_text("utf-8") == page(found, planned)
    if committed:
        assert published.partition(BEGIN)[2].partition(END)[0].strip() == block(found)
    for name, results in found.items():
        kept, made = (r.model_dump() for r in (read(home / f"results-{name}.json"), results))
        for images in ("train", "test"):  # counted only where the images are at hand
            del kept["dataset"][images], made["dataset"][images]
        assert kept == made
        assert (home / f"frontier-{name}.svg").is_file()

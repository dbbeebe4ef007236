"""Everything that is made from the experiments: summary, pages, README's tables."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import ROOT
from benchmarks.extraction import tables
from benchmarks.extraction.plots import write_plots
from benchmarks.extraction.records import ExperimentStore, read_experiments
from benchmarks.extraction.results import (
    documents,
    kept_victims,
    write_documents,
    write_summary,
)
from benchmarks.extraction.scenarios import COMPACT
from benchmarks.extraction.specs import ExperimentSpec
from benchmarks.extraction.victim_archive import keep_victims
from benchmarks.hardware import measure as hardware
from benchmarks.pages import rewrite_block, table
from divqat_brevitas.files import replacing, write_text
from fpga_flow.report.schema import Results

_INTRODUCTION = """\
# Results

Made by `divqat bench extraction --publish` from `benchmarks/extraction/experiments.jsonl.gz`.
`divqat bench extraction` attacks hardware-exact victims: the integer engine, which equals the RTL.
Accuracies are of test data, in per cent, as mean ± standard deviation over victim seeds.
Differences are clone accuracy minus that of plain QAT's worst case, in points, paired by victim
seed and attack seed, with a 95 % t-interval over victim seeds; bold where it excludes zero, without
a correction for the number of comparisons.

- *Naive*: KnockoffNets with random queries, and responses used as they come.
- *Worst case*: the attacker's best mean over victim seeds, among attacks run on every victim seed
  with that kind of query pool and that budget. It is chosen on the numbers shown, so it is biased
  upwards, against the defence.
- *Soft family*: logits, soft, topk and rounded responses. *All*: labels only too.
- *− labels only*: the difference to plain QAT behind an interface that shows labels only.
- *+gate*: behind the label-only fallback of its decoy class.
- †: plain QAT met attacks that this victim did not; they are left out of the difference.

The prior-corrected attackers (learners with *corrected*) came last: most of their experiments are
missing, see the end of the page. Where they are missing, worst cases are too low, ours included.

Three victims times three attackers support the main pools of Fashion-MNIST and CIFAR-10, three
pairs of seeds their other pools and the other data sets, and one pair most further attacks,
learners and combinations. [Threat model and limits](explanation/threat-model.md) explains what the
tables show and what they do not.
"""
_DEFENCES = (
    "The same defence of the responses on each victim; behind a gate it is on top of the gate. "
    "*defence@0.2*: as strong as moves the responses to the owner's validation images by a mean ℓ1 "
    "distance of 0.2, victim by victim; *no more*: at its strongest it moves them by that. The "
    "attacker's distance is on images of its pool. ‡ The defences cost unequally, by more than a "
    "tenth."
)

_CONTRACT = """\
# Leaderboard

Made by `divqat bench extraction --publish`. The attackers are the best that were run here, by mean
clone accuracy over victim seeds; [Results](results.md) says how far the numbers go, and which
attackers are missing. A better attacker is the most welcome contribution.

## The rules

- **Victims are given.** The attacked networks are in `benchmarks/extraction/victims.zip`, by the
  hash of their weights. A victim responds through the integer engine, which equals the hardware.
- **One image is one query.** Repetitions, mirrored and shifted images, and images of which the
  response is thrown away count. The victim counts them, and stops at the budget.
- **The attacker knows** the data set's number of classes and image size, the images of its query
  pool, and the responses. It has neither the victim's weights nor its training or test images, and
  chooses its settings on responses only.
- **One record is one result**: a line of `experiments.jsonl.gz` with data set, victim, response,
  defence, attack, learner, clone network, pool, budget, both seeds, and the clone's accuracy on all
  test images. Every result that was run stays, the bad ones too.
- **Three victims times three attack seeds** carry a claim; one pair is a hint, and is marked so.

## To submit

An attack, a learner or a defence is a [plug-in](guides/plugins.md): a package with an entry point,
no change of the two packages. Add its scenario to `benchmarks/extraction/scenarios.py`, run
`divqat bench extraction --only PATTERN`, then `--publish`, and open a pull request with the records
and the changed pages. `divqat bench extraction --experiment NAME` runs any record again, on the
kept victim, and compares.
"""
_LEADERS = ("Queries", "Victim", "Accuracy", "Clone", "Best attacker", "Best on labels only")

_FEWER = "† Plain QAT met attacks that this victim did not: they are left out of the difference."


def publish(
    folder: Path,
    work: Path,
    planned: Sequence[ExperimentSpec],
    *,
    page: Path | None = None,
    readme: Path | None = None,
) -> list[Path]:
    """Pack finished experiments and write what is made from all of them.

    Beside the experiments: ``summary.json``, ``attackers.csv`` and ``results-<dataset>.json``.

    Args:
        folder: of results, with ``experiments.jsonl.gz`` or where it goes.
        work: the benchmark's work folder, with finished experiments and victims.
        planned: the plan; experiments that it does not describe are dropped.
        page: the results' page; its figures go to a folder of the same name. None: beside the
            experiments.
        readme: a page whose blocks "results" and "hardware" are rewritten.

    Returns:
        The files written.

    Raises:
        InputError: no experiments, a damaged one, or a page without marks.
        ToolMissingError: matplotlib is not installed.
    """
    ExperimentStore(folder, work).pack(planned)
    experiments = read_experiments(folder)
    keep_victims(folder, work, experiments)
    found = documents(experiments, kept_victims(folder))
    page = folder / "results.md" if page is None else page
    plots = write_plots(found, COMPACT, page.with_suffix(""))
    write_text(page, results_page(found, planned))
    leaderboard = page.with_name("leaderboard.md")
    write_text(leaderboard, leaderboard_page(found))
    table = folder / "attackers.csv"
    with replacing(table) as temporary:
        tables.every_attacker(found).to_csv(temporary, index=False)
    if readme is not None:
        for name, text in readme_blocks(found).items():
            rewrite_block(readme, name, text)
    return [
        page,
        leaderboard,
        *plots,
        *([] if readme is None else [readme]),
        write_summary(found, folder),
        table,
        *write_documents(found, folder),
    ]


def readme_blocks(found: Mapping[str, Results]) -> dict[str, str]:
    """The README's tables, by the names of their marks."""
    return {
        "results": "\n".join([*tables.headline_table(found, COMPACT), _FEWER]).strip(),
        "hardware": "\n".join(hardware.headline_table(_designs())).strip(),
    }


def results_page(found: Mapping[str, Results], planned: Sequence[ExperimentSpec]) -> str:
    """The page of all results."""
    lines = [
        _INTRODUCTION,
        "![Worst-case clones of plain QAT, of the decoy and of labels only](results/clones.svg)",
        "",
        *tables.headline_table(found, COMPACT),
        "![Worst-case clone against the number of queries](results/budgets.svg)",
        "",
        "## Hardware",
        "",
        *hardware.table(_designs()),
    ]
    for results in found.values():
        more = results.dataset.model_extra or {}
        network = f"{more.get('model', '?')}, {more.get('bits', '?')}"
        lines += [
            f"## {tables.title(results)} ({network})",
            "",
            *tables.main_table(results),
            *tables.claim_lines(results),
        ]
        for heading, introduction, part in (
            ("Attackers behind the worst cases", [], tables.best_attackers),
            ("Every variant", [], tables.variant_table),
            ("With an existing defence", [_DEFENCES, ""], tables.defence_table),
            ("Utility beyond accuracy", [], tables.utility_table),
        ):
            shown = part(results)
            lines += [f"### {heading}", "", *((*introduction, *shown) or ["Not run.", ""])]
    lines += ["## What was not run", "", *tables.not_run(found, planned)]
    return "\n".join(lines).rstrip() + "\n"


def leaderboard_page(found: Mapping[str, Results]) -> str:
    """The page, of the results by data set.

    Attackers are named attack / learner / pool / clone network on response.
    """
    lines = [_CONTRACT]
    for results in found.values():
        lines += [f"## {tables.title(results)}", "", *_leaders(results)]
    return "\n".join(lines).rstrip() + "\n"


def _leaders(results: Results) -> list[str]:
    rows = []
    for group in tables.groups(results):
        best = tables.worst_of(results, group)
        if best is None:
            continue
        labels = tables.worst_of(results, replace(group, oracles=("top1",)))
        seeds = len(best.by_victim)
        rows.append(
            (
                tables.queries(group),
                group.victim,
                tables.with_cost(results, group.victim),
                tables.clones(best) + (" (one victim)" if seeds == 1 else ""),
                best.name,
                tables.NONE if labels is None else f"{labels.name}: {tables.clones(labels)}",
            )
        )
    return table(_LEADERS, rows)


def _designs() -> list[hardware.Record]:
    return hardware.read(ROOT / "benchmarks" / "hardware")

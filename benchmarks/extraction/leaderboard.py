"""The leaderboard: the best attacker of every victim, and what a new one has to keep to."""

from collections.abc import Mapping
from dataclasses import replace

from benchmarks.extraction import tables
from benchmarks.pages import table
from fpga_flow.report.schema import Results

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
no change of this repository. Add its scenario to `benchmarks/extraction/scenarios.py`, run
`divqat bench extraction --only PATTERN`, then `--publish`, and open a pull request with the records
and the changed pages. `divqat bench extraction --experiment NAME` runs any record again, on the
kept victim, and compares.
"""
_HEAD = ("Queries", "Victim", "Accuracy", "Clone", "Best attacker", "Best on labels only")


def leaderboard_page(found: Mapping[str, Results]) -> str:
    """The page, of the results by data set.

    Attackers are named attack / learner / pool / clone network on response.
    """
    lines = [_CONTRACT]
    for results in found.values():
        lines += [f"## {tables.title(results)}", "", *_table(results)]
    return "\n".join(lines).rstrip() + "\n"


def _table(results: Results) -> list[str]:
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
    return table(_HEAD, rows)

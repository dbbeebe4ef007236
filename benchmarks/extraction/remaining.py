"""What the benchmark's page says of what is not there."""

from collections import Counter
from collections.abc import Sequence

from benchmarks.extraction.collect import HASH
from benchmarks.extraction.markdown import table
from benchmarks.extraction.specs import CellSpec
from fpga_flow.report.schema import Results
from fpga_flow.report.text import counted


def not_run(found: dict[str, Results], planned: Sequence[CellSpec] | None) -> list[str]:
    """Planned cells that lack, and those whose victim cannot be attacked again."""
    lines = ["## What was not run", ""]
    if planned is not None:
        there = {
            (row.model_extra or {}).get("name")
            for results in found.values()
            for row in results.attacks
        }
        lacking = [spec for spec in planned if spec.name not in there]
        here = len(planned) - len(lacking)
        lines += [f"{here:,} of {counted(len(planned), 'planned cell')} are here.", ""]
        by = Counter((spec.victim.dataset, spec.theft.attack) for spec in lacking)
        lines += table(
            ("Data set", "Attack", "Cells lacking"),
            [(*key, str(count)) for key, count in sorted(by.items())],
        )
    lost, every = _on_lost_victims(found)
    if lost:
        lines += [
            f"{lost:,} of {counted(every, 'attack')} met an earlier training of the victim of that "
            "name, whose weights were not kept: the same settings end elsewhere on another "
            "processor. All others can be run again on the very same network "
            "(`victims/*.gz`, `--cell`).",
            "",
        ]
    lines.append(
        "Nothing on a board, nothing at the sizes of the papers (`--scale paper`), and no attack "
        "outside of `divqat_brevitas.extraction.ATTACKS`."
    )
    return [*lines, ""]


def _on_lost_victims(found: dict[str, Results]) -> tuple[int, int]:
    """How many attacks were on a network other than the kept one, and how many there are."""
    lost = every = 0
    for results in found.values():
        kept = {
            (row.variant, row.seed): (row.model_extra or {}).get(HASH) for row in results.victims
        }
        for attack in results.attacks:
            every += 1
            lost += (attack.model_extra or {}).get(HASH) != kept[attack.victim, attack.victim_seed]
    return lost, every

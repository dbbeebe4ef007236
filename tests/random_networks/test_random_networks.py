"""A few hundred random networks; ``python tests/random_networks`` runs any number."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from standing import Outcome, run

slow = pytest.mark.slow  # integer layers take about 0.05 seconds, a raw graph 0.1, an export one
SEEDS = [
    # Those beyond 120 ended in errors once: tables that wrapped, a view of a narrow map.
    pytest.param("layers", (*range(120), 729, 746, 748, 1002, 1394, 1576), marks=slow),
    pytest.param("qonnx", range(120), marks=slow),
    pytest.param("executed-qonnx", range(150, 158), marks=slow),
    pytest.param("brevitas", range(2, 8), marks=slow),
    ("layers", range(200, 230)),
    ("qonnx", range(200, 220)),
    ("brevitas", range(2)),
]
# Parts of the lines: what a generator stopped drawing would no longer be tested.
DRAWN = {
    "layers": ("ties", "any", "even", "+ shifted", "max", " d", " p", "bipolar"),
    "qonnx": (
        *("dyadic", "bipolar", "FLOOR", "CEIL", "a channel", "dead", "all 0", "ends", "bias"),
        *("SAME_UPPER", "SAME_LOWER", "concat", "pad [", "x + x", "+ x", "+ projected", " ceil"),
        *("AveragePool", "GlobalAveragePool", "ReduceMean", "Squeeze", "alpha", "beta", "Clip"),
        *("image Mul", "batch N", "before the image", "behind the image", "Constant nodes"),
    ),
}
# A build takes about 2 seconds, a simulation 10.
HARDWARE = {"finn": 10, "rtl": 3, "branches": 2}


@pytest.mark.finn
@pytest.mark.slow
@pytest.mark.parametrize("kind", HARDWARE)
def test_what_check_calls_legal_builds_and_is_equal(kind: str, tmp_path: Path) -> None:
    outcome = Outcome()
    seeds = iter(range(10 * HARDWARE[kind]))
    while outcome.compared < HARDWARE[kind]:
        run(kind, next(seeds), outcome, tmp_path)
        assert outcome.differences + outcome.faults == [], str(outcome)


@pytest.mark.parametrize(("kind", "seeds"), SEEDS)
def test_every_integer_is_equal_or_the_network_is_refused(
    kind: str, seeds: Sequence[int], tmp_path: Path
) -> None:
    outcome = Outcome()
    lines = "\n".join(run(kind, seed, outcome, tmp_path) for seed in seeds)
    assert outcome.differences + outcome.faults == [], str(outcome)
    # A generator of what nobody takes would test nothing.
    assert outcome.compared > 0.7 * len(seeds), outcome.reasons
    if len(seeds) > 100:
        assert [part for part in DRAWN[kind] if part not in lines] == []

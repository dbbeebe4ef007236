"""A few hundred random networks; ``python tests/random_networks`` runs any number."""

from pathlib import Path

import pytest
from standing import Outcome, run

# As many as fit: a raw graph takes about 0.1 seconds, an export half of one.
COUNTS = {"layers": 200, "qonnx": 150, "executed-qonnx": 15, "brevitas": 12}


# A build takes about 2 seconds, a simulation 10.
HARDWARE = {"finn": 10, "rtl": 3}


@pytest.mark.finn
@pytest.mark.slow
@pytest.mark.parametrize("kind", HARDWARE)
def test_what_check_calls_legal_builds_and_is_equal(kind: str, tmp_path: Path) -> None:
    outcome = Outcome()
    seeds = iter(range(10 * HARDWARE[kind]))
    while outcome.compared < HARDWARE[kind]:
        run(kind, next(seeds), outcome, tmp_path)
        assert outcome.differences + outcome.faults == [], str(outcome)


@pytest.mark.parametrize("kind", COUNTS)
def test_every_integer_is_equal_or_the_network_is_refused(kind: str, tmp_path: Path) -> None:
    outcome = Outcome()
    for seed in range(COUNTS[kind]):
        run(kind, seed, outcome, tmp_path)
    assert outcome.differences + outcome.faults == [], str(outcome)
    # A generator of what nobody takes would test nothing.
    assert outcome.compared > COUNTS[kind] / 2, outcome.reasons

"""A few hundred random networks; ``python tests/random_networks`` runs any number."""

from pathlib import Path

import pytest
from standing import Outcome, run

# As many as fit: a raw graph takes about 0.1 seconds, an export half of one.
COUNTS = {"layers": 200, "qonnx": 150, "executed-qonnx": 15, "brevitas": 12}


@pytest.mark.parametrize("kind", COUNTS)
def test_every_integer_is_equal_or_the_network_is_refused(kind: str, tmp_path: Path) -> None:
    outcome = Outcome()
    for seed in range(COUNTS[kind]):
        run(kind, seed, outcome, tmp_path)
    assert outcome.differences + outcome.faults == [], str(outcome)
    # A generator of what nobody takes would test nothing.
    assert outcome.compared > COUNTS[kind] / 2, outcome.reasons

"""The suite of attacks: every query counted, every second somewhere."""

import json

import pytest

from benchmarks.speed import attacks
from benchmarks.speed.suite import Context, Record


@pytest.fixture(scope="module")
def record() -> Record:
    found: Record = json.loads(json.dumps(attacks.measure(Context(rounds=1, quick=True))))
    return found


@pytest.mark.slow  # measures
def test_every_query_is_counted_in_chunks(record: Record) -> None:
    run = record["run"]
    assert (run["queries"], run["counted"], run["batches"]) == (200, 200, 1)
    assert len(run["loss"]) == record["epochs"]


def test_parts_lie_within_the_whole(record: Record) -> None:
    seconds = record["run"]["seconds"]
    assert 0 < seconds["engine"] <= seconds["victim"]
    assert seconds["victim"] + seconds["training"] <= seconds["total"]
    memory = record["run"]["memory"]
    assert 0 < memory["pool"] < memory["before"] <= memory["peak"]


def test_plain_loops_start_where_ours_does() -> None:
    calls = attacks._epochs((1, 8, 8), "mlp", 64)
    assert set(calls) == set(attacks._SHOWN)
    (row,) = calls["ours"]()  # type: ignore[misc]
    assert row["epoch"] == 1
    for name in ("plain", "plain-nhwc"):
        assert sum(p.numel() for p in calls[name]().parameters()) > 0  # type: ignore[attr-defined]

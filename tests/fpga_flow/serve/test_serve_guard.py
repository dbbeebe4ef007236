"""The server's tripwire: a counter for each token that outlives restarts."""

import time

import numpy as np
import pytest

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import Victim
from divqat_brevitas.extraction.detection.tripwire import Tripwire
from fpga_flow.serve import Client, Guard, QueryLedger, RejectWatch, RestVictim, Service, running

SHAPE = (1, 8, 8)
RED, BLUE = Client("red", "correct-horse-battery"), Client("blue", "staple-battery-horse")
NUMBERS = {"add": 3, "subtract": 1, "alarm_at": 9, "start": 4}


class Bright:
    """Three classes; an image whose first pixel is bright is rejected, as class 2."""

    def __init__(self):
        self.images = 0

    def predict(self, images):
        self.images += len(images)
        bright = images[:, 0, 0, 0]
        return np.stack([0.3 - bright, 0.4 - bright, bright], axis=1).astype(np.float32) * 4


def queries(*rejected):
    images = np.zeros((len(rejected), *SHAPE), np.float32)
    images[:, 0, 0, 0] = rejected
    return images


@pytest.fixture
def guarded(tmp_path):
    """A context of a served, guarded victim: (url, guard, alarms)."""

    def start(policy="label-only", numbers=NUMBERS, *, cache=False, oracle="soft", **options):
        watch = RejectWatch(Bright(), reject_class=2)
        alarms = []
        tripwire = Tripwire(policy=policy, **numbers)
        guard = Guard(tripwire, watch, on_alarm=lambda *what: alarms.append(what), **options)
        victim = Victim(watch, oracle, 1000, cache=cache)
        ledger = QueryLedger(tmp_path / "ledger.sqlite", {"model": "bright"}, 1000)
        service = Service(victim, SHAPE, 3, ledger, clients=[RED, BLUE], guard=guard)
        return ledger, running(service), guard, alarms

    return start


def ask(url, images, client=RED):
    return RestVictim(url, client.token).query(images)


def is_label(responses):
    return (np.sort(responses, axis=1) == [0, 0, 1]).all(axis=1).tolist()


def test_trust_is_earned_by_each_token_and_outlives_a_restart(guarded):
    ledger, server, guard, _ = guarded()
    with server as url:
        assert is_label(ask(url, queries(0, 0, 0, 0, 0))) == [True, True, True, False, False]
        assert is_label(ask(url, queries(0), BLUE)) == [True]
    ledger.close()

    ledger, server, again, _ = guarded()
    assert again.state("red") == guard.state("red")
    with server as url:
        assert is_label(ask(url, queries(0))) == [False]
        assert is_label(ask(url, queries(0), BLUE)) == [True]
    ledger.close()


def test_the_alarm_is_raised_once_and_stays(guarded):
    ledger, server, guard, alarms = guarded()
    with server as url:
        ask(url, queries(0, 0, 0, 0))
        responses = ask(url, queries(1, 1, 1, 0))
        ask(url, queries(*[0] * 30, 1, 1, 1))
    ledger.close()

    assert is_label(responses) == [False, False, True, True]
    assert alarms == [("red", 7)]
    assert guard.alarms == ["red"]
    assert guarded()[2].alarms == ["red"]


def test_a_locked_token_gets_nothing_more(guarded):
    ledger, server, _, _ = guarded("lock")
    with server as url:
        responses = ask(url, queries(1, 1, 0))
        assert is_label(responses) == [True, False, False]
        assert not responses[1:].any()
        before = RestVictim(url, RED.token).info.queries_used
        with pytest.raises(Exception, match="locked"):
            ask(url, queries(0))
        assert RestVictim(url, RED.token).info.queries_used == before
        assert is_label(ask(url, queries(0), BLUE)) == [True]
    ledger.close()


def test_slow_responses_wait_and_requests_side_by_side_do_not_help(guarded):
    ledger, server, guard, _ = guarded("slow", slow_seconds=0.05)
    with server as url:
        start = time.monotonic()
        assert is_label(ask(url, queries(0, 0, 0))) == [False] * 3
        # A lower bound only: three images before trust.
        assert time.monotonic() - start >= 0.15
    guard.keep("red", guard.count("red", queries(1, 1))[1], 5)
    assert guard.delay("red") > 0.05
    assert guard.delay("blue") == 0
    ledger.close()


def test_other_numbers_give_no_trust_that_was_not_earned_under_them(guarded):
    """What a changed tripwire shows depends on its own numbers, applied to all queries so far."""
    ledger, server, guard, _ = guarded()
    with server as url:
        ask(url, queries(0, 0, 0, 0))
    assert guard.state("red").trusted
    ledger.close()

    ledger, server, guard, _ = guarded(numbers=NUMBERS | {"start": 8})
    with server as url:
        assert is_label(ask(url, queries(0, 0, 0, 0))) == [True, True, True, False]
    ledger.close()


def test_reporting_changes_no_response(guarded):
    ledger, server, _, alarms = guarded("report")
    images = queries(1, 0, 1, 1, 1)
    with server as url:
        np.testing.assert_array_equal(ask(url, images), Victim(Bright(), "soft").query(images))
    assert [client for client, _ in alarms] == ["red"]
    ledger.close()


def test_a_cached_response_counts_as_well(guarded):
    ledger, server, _, alarms = guarded(cache=True)
    with server as url:
        for _ in range(2):
            ask(url, queries(1))
    assert alarms == [("red", 2)]
    ledger.close()


def test_what_was_asked_under_a_key_is_counted_once(guarded):
    ledger, server, guard, _ = guarded()
    with server as url:
        client = RestVictim(url, RED.token).client
        first = client.ask(queries(1), key="k")
        np.testing.assert_array_equal(client.ask(queries(1), key="k"), first)
    assert guard.state("red").counter == 7
    ledger.close()


class Hiding(Bright):
    """A chip with an answer unit that hides what it rejects."""

    def predict(self, images):
        return np.tile(np.float32([0.2, 0.8]), (len(images), 1))

    def rejected(self, images):
        return images[:, 0, 0, 0] > 0.5


def test_what_a_chip_hides_is_counted():
    watch = RejectWatch(Hiding(), None)
    assert watch.predict(queries(0, 1)).argmax(axis=1).tolist() == [1, 1]
    assert watch.rejected(queries(0, 1)).tolist() == [False, True]


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="--reject-class"):
        RejectWatch(Bright(), None)
    with pytest.raises(InputError, match="none of the 3 classes"):
        RejectWatch(Bright(), 3).predict(queries(0))
    with pytest.raises(InputError, match="slow_seconds"):
        Guard(Tripwire(**NUMBERS), RejectWatch(Bright(), 2), slow_seconds=-1)

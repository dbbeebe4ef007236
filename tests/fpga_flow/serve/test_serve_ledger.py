import signal
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import BudgetExceededError
from fpga_flow.serve import QueryLedger

ABOUT = {"model": "a"}


def answers(count):
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)


def spend(ledger, count, client="", key=None):
    with ledger.reserve(client, count) as reservation:
        reservation.commit(key, "00", answers(count))


def test_a_restart_does_not_forget(tmp_path):
    path = tmp_path / "deep" / "ledger.sqlite"
    ledger = QueryLedger(path, ABOUT, 10, {"red": 5})
    spend(ledger, 4, "red", "k")
    spend(ledger, 3, "blue")
    ledger.close()
    again = QueryLedger(path, ABOUT, 10, {"red": 5})
    assert (again.used(), again.used("red"), again.remaining("red")) == (7, 4, 1)
    assert again.remaining("blue") == 3
    np.testing.assert_array_equal(again.recall("red", "k").answers, answers(4))
    assert again.recall("blue", "k") is None
    again.close()
    raised = QueryLedger(path, ABOUT, 20)
    assert raised.remaining("blue") == 13
    raised.close()
    lowered = QueryLedger(path, ABOUT, 2)
    assert lowered.remaining("blue") == 0
    lowered.close()


def test_what_fails_gives_its_queries_back():
    ledger = QueryLedger(None, ABOUT, 10)

    def fail():
        with ledger.reserve("", 8):
            assert ledger.remaining("") == 2
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (ledger.used(), ledger.remaining("")) == (0, 10)


def test_what_fails_after_the_commit_is_counted_once():
    ledger = QueryLedger(None, ABOUT, 10)

    def fail():
        with ledger.reserve("", 8) as reservation:
            reservation.commit(None, "00", answers(8))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (ledger.used(), ledger.remaining("")) == (8, 2)


def test_a_commit_that_cannot_be_written_counts_nothing():
    ledger = QueryLedger(None, ABOUT, 10)
    spend(ledger, 1, key="same")
    with pytest.raises(sqlite3.IntegrityError):
        spend(ledger, 2, key="same")
    assert (ledger.used(), ledger.remaining("")) == (1, 9)


def test_reservations_of_many_threads_never_pass_the_budget():
    ledger = QueryLedger(None, ABOUT, 100)
    start = threading.Barrier(8)
    refused = []

    def work(seed):
        rng = np.random.default_rng(seed)
        start.wait()
        for _ in range(40):
            try:
                spend(ledger, int(rng.integers(1, 4)))
            except BudgetExceededError:
                refused.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused
    assert 98 <= ledger.used() <= 100


def test_a_second_server_on_one_ledger_is_refused(tmp_path):
    path = tmp_path / "ledger.sqlite"
    ledger = QueryLedger(path, ABOUT, 10)
    with pytest.raises(InputError, match="another server"):
        QueryLedger(path, ABOUT, 10)
    ledger.close()
    QueryLedger(path, ABOUT, 10).close()


def test_a_ledger_of_something_else_is_refused(tmp_path):
    path = tmp_path / "ledger.sqlite"
    QueryLedger(path, ABOUT, 10).close()
    with pytest.raises(InputError, match="something else"):
        QueryLedger(path, {"model": "b"}, 10)
    QueryLedger(path, ABOUT, 10).close()


def test_a_file_that_is_no_ledger_is_refused_and_kept(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes, which are longer than a header of SQLite would be " * 20)
    before = path.read_bytes()
    with pytest.raises(InputError, match="not a ledger"):
        QueryLedger(path, ABOUT, 10)
    assert path.read_bytes() == before


@pytest.mark.slow  # processes that are killed
def test_a_killed_process_leaves_what_it_committed(tmp_path):
    path = tmp_path / "ledger.sqlite"
    code = f"""
import os, signal, pathlib, numpy as np
from fpga_flow.serve.ledger import QueryLedger
ledger = QueryLedger(pathlib.Path({str(path)!r}), {{"model": "a"}}, 10)
for _ in range(3):
    with ledger.reserve("", 2) as reservation:
        reservation.commit(None, "00", np.zeros((2, 3), np.float32))
with ledger.reserve("", 2):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    ledger = QueryLedger(path, ABOUT, 10)
    assert (ledger.used(), ledger.remaining("")) == (6, 4)
    ledger.close()

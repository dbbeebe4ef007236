"""The server's count of queries: survives restarts, and never exceeds a budget.

A request reserves its images, is answered, and is committed with its answers to an SQLite file
before a byte of them is sent. What fails before the commit was never counted; what is lost after
it can be asked again under the same key and gets the stored answers, uncounted.
"""

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Responses
from divqat_brevitas.extraction.detection.tripwire import Rejected
from divqat_brevitas.extraction.victim import BudgetExceededError
from divqat_brevitas.short_repr import ShortRepr

ANYONE = ""
"""The client of a server without tokens."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY,
    client TEXT NOT NULL,
    key TEXT,
    images INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    answers BLOB NOT NULL,
    rejected BLOB,
    UNIQUE (client, key)
);
"""


@dataclass(frozen=True)
class Recalled(ShortRepr):
    """A request answered before."""

    sha256: str  # of its images' float32 bytes
    answers: Responses  # float32 (N, classes), as they were given


@dataclass
class Reservation:
    """Queries set aside; :meth:`commit` spends them, leaving the block without it frees them."""

    ledger: "QueryLedger"
    client: str
    open: int  # queries set aside and not spent

    def commit(
        self,
        key: str | None,
        sha256: str,
        answers: Responses,
        rejected: Rejected | None = None,
    ) -> None:
        """Count the queries, and keep the answers; on the disk when this returns.

        Args:
            key: under which the answers can be asked again.
            sha256: of the images.
            answers: as they are given.
            rejected: whether each image was rejected, for the tripwire; None: there is none.
        """
        self.ledger._commit(self.client, key, self.open, sha256, answers, rejected)
        self.open = 0


class QueryLedger:
    """Counts queries by client. Threads may share one; two processes may not.

    Args:
        path: an SQLite file, made if it is not there; None keeps the count in memory.
        about: what is asked (model, oracle, defence), as JSON values: a file of another is refused.
        budget: queries in all, at least 0.
        budgets: of single clients, within it.

    Raises:
        InputError: the file is another server's, of another model, or damaged.

    Example:
        >>> ledger = QueryLedger(None, {"model": "a"}, budget=5)
        >>> with ledger.reserve(ANYONE, 3) as reservation:
        ...     reservation.commit(None, "00", np.zeros((3, 2), np.float32))
        >>> ledger.remaining(ANYONE)
        2
    """

    def __init__(
        self,
        path: Path | None,
        about: Mapping[str, Any],
        budget: int,
        budgets: Mapping[str, int | None] | None = None,
    ) -> None:
        self.path = path
        self.budget = budget
        self._budgets = dict(budgets or {})
        self._lock = threading.Lock()
        self._reserved: Counter[str] = Counter()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(
                ":memory:" if path is None else path, timeout=0, check_same_thread=False
            )
            self._open(json.dumps(about, sort_keys=True))
            rows = self._database.execute("SELECT client, SUM(images) FROM requests GROUP BY 1")
            self._used = Counter(dict(rows.fetchall()))
        except sqlite3.OperationalError as e:
            raise InputError(
                f"cannot use the ledger {path} ({e}). Is another server running with it? Stop it, "
                "or choose another file with --ledger."
            ) from e
        except sqlite3.DatabaseError as e:
            raise InputError(f"{path} is not a ledger ({e}). Choose another with --ledger.") from e

    def _open(self, about: str) -> None:
        database = self._database
        # The lock is held for life, so that a second server cannot count beside this one.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.executescript(_SCHEMA)
        with database:
            database.execute("BEGIN IMMEDIATE")
            found = database.execute("SELECT text FROM about").fetchone()
            if found is None:
                database.execute("INSERT INTO about VALUES (?)", (about,))
        if found is not None and found[0] != about:
            database.close()
            raise InputError(
                f"the ledger {self.path} counts the queries of something else: {found[0]}, not "
                f"{about}. Give each model, oracle and defence a --ledger of its own."
            )

    def close(self) -> None:
        """Give the file free; every committed request is in it already."""
        with self._lock:
            self._database.close()

    def budget_of(self, client: str) -> int:
        """Queries that a client may ask in all."""
        own = self._budgets.get(client)
        return self.budget if own is None else min(own, self.budget)

    def used(self, client: str | None = None) -> int:
        """Queries answered: to a client, or to all."""
        with self._lock:
            return self._used[client] if client is not None else self._used.total()

    def remaining(self, client: str) -> int:
        """Queries that a client may still reserve."""
        with self._lock:
            return self._left(client)

    def _left(self, client: str) -> int:
        left = self.budget - self._used.total() - self._reserved.total()
        own = self._budgets.get(client)
        if own is not None:
            left = min(left, own - self._used[client] - self._reserved[client])
        return max(0, left)

    @contextmanager
    def reserve(self, client: str, images: int) -> Iterator[Reservation]:
        """Set ``images`` queries aside for the length of a block.

        Raises:
            BudgetExceededError: fewer are left; nothing was set aside.
        """
        with self._lock:
            left = self._left(client)
            if images > left:
                raise BudgetExceededError(
                    f"{images} more queries do not fit: {left} of {self.budget_of(client)} are "
                    "left. Ask fewer images; the owner may raise the budget."
                )
            self._reserved[client] += images
        reservation = Reservation(self, client, images)
        try:
            yield reservation
        finally:
            with self._lock:
                self._reserved[client] -= reservation.open

    def _commit(
        self,
        client: str,
        key: str | None,
        images: int,
        sha256: str,
        answers: Responses,
        rejected: Rejected | None,
    ) -> None:
        blob = answers.astype("<f4").tobytes()
        bits = None if rejected is None else rejected.tobytes()
        with self._lock:
            with self._database:
                self._database.execute(
                    "INSERT INTO requests (client, key, images, sha256, answers, rejected) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (client, key, images, sha256, blob, bits),
                )
            self._used[client] += images
            self._reserved[client] -= images

    def rejections(self) -> dict[str, Rejected]:
        """Whether each query was rejected, by client, bool (N,) in the order asked.

        Queries that were answered without a tripwire are left out.
        """
        with self._lock:
            rows = self._database.execute(
                "SELECT client, rejected FROM requests WHERE rejected IS NOT NULL ORDER BY id"
            ).fetchall()
        blobs: dict[str, list[bytes]] = {}
        for client, blob in rows:
            blobs.setdefault(client, []).append(blob)
        return {client: np.frombuffer(b"".join(own), np.bool_) for client, own in blobs.items()}

    def recall(self, client: str, key: str) -> Recalled | None:
        """What a client was answered under a key; None where it was not."""
        with self._lock:
            row = self._database.execute(
                "SELECT images, sha256, answers FROM requests WHERE client = ? AND key = ?",
                (client, key),
            ).fetchone()
        if row is None:
            return None
        images, sha256, blob = row
        answers = np.frombuffer(blob, "<f4").reshape(images, -1).astype(np.float32)
        return Recalled(sha256, answers)

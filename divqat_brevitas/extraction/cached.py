"""Logits kept on disk by image content: a slow victim answers each image once, over all runs."""

import hashlib
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Answers, Images, check_images, check_logits
from divqat_brevitas.extraction.predictor import Predictor

_CHUNK = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (identity TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS logits (image BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""


class CachedPredictor:
    """A predictor whose logits are kept in a file, for simulations that take seconds an image.

    It stands behind the :class:`Victim`, so that budget and ledger count every image, remembered
    or not, and a defence is computed anew. Only for predictors that always answer alike. The file
    (SQLite) is safe to share between processes and to kill: a batch is in it whole or not at all.

    Args:
        predictor: answers what is not in the file.
        path: of the file; made where it is missing.
        identity: what names the model, such as the SHA-256 of its file: a cache holds the
            answers of one model.

    Attributes:
        asked: images that the predictor was asked since this object was made.

    Raises:
        InputError: the file is another model's, damaged, or cannot be written.

    Example:
        >>> from divqat_brevitas.extraction import TorchPredictor, Victim
        >>> cached = CachedPredictor(TorchPredictor(model), Path("answers.sqlite"), "model 1")
        >>> Victim(cached, oracle="soft", budget=5000).query(images).shape, cached.asked
        ((64, 10), 64)
    """

    def __init__(self, predictor: Predictor, path: Path, identity: str) -> None:
        self._predictor = predictor
        self._path = Path(path)
        self._lock = threading.Lock()
        self.asked = 0
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as file:
                file.executescript(_SCHEMA)
                file.execute("BEGIN IMMEDIATE")
                held = file.execute("SELECT identity FROM about").fetchone()
                if held is None:
                    file.execute("INSERT INTO about VALUES (?)", (identity,))
                file.execute("COMMIT")
        except (OSError, sqlite3.Error) as e:
            raise self._unusable(e) from e
        if held is not None and held[0] != identity:
            raise InputError(
                f"{self._path} holds the answers of another model ({held[0]}, not {identity}). "
                "Give each model a file of its own."
            )

    def predict(self, images: Images) -> Answers:
        """Logits, float32 (N, classes), of images, float32 NCHW in [0, 1].

        Raises:
            InputError: bad images, bad logits of the predictor, or a file that fails.
        """
        check_images(images)
        with self._lock:
            try:
                with closing(self._open()) as file:
                    parts = [
                        self._some(file, images[i : i + _CHUNK])
                        for i in range(0, len(images), _CHUNK)
                    ]
            except sqlite3.Error as e:
                raise self._unusable(e) from e
        return np.concatenate(parts)

    def _some(self, file: sqlite3.Connection, images: Images) -> Answers:
        shape = str(images.shape[1:]).encode()
        keys = [hashlib.sha256(shape + image.tobytes()).digest() for image in images]
        held = self._held(file, keys)
        new = {key: i for i, key in enumerate(keys) if key not in held}
        if new:
            chosen = images[list(new.values())]
            fresh = check_logits(self._predictor.predict(chosen), len(new), "the predictions")
            self.asked += len(new)
            rows = [(key, row.tobytes()) for key, row in zip(new, fresh, strict=True)]
            # Another process may have answered the same image meanwhile: the first stays.
            file.executemany("INSERT OR IGNORE INTO logits VALUES (?, ?)", rows)
            file.commit()
            held = {**held, **dict(rows)}
        values = [np.frombuffer(held[key], dtype=np.float32) for key in keys]
        if len({len(value) for value in values}) != 1:
            raise self._unusable("rows of different lengths")
        return np.stack(values)

    def _held(self, file: sqlite3.Connection, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        wanted = list(set(keys))
        marks = ",".join("?" * len(wanted))
        found = file.execute(f"SELECT image, value FROM logits WHERE image IN ({marks})", wanted)
        return dict(found.fetchall())

    def _open(self) -> sqlite3.Connection:
        # Waits a minute for other processes' writing.
        return sqlite3.connect(self._path, timeout=60)

    def _unusable(self, why: object) -> InputError:
        return InputError(
            f"the cache {self._path} cannot be used: {why}. Remove it, or give another path: its "
            "answers are computed again."
        )

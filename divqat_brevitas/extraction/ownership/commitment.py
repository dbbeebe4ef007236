"""A commitment to a fingerprint: its hash is published, its record stays secret until a test.

The record holds the fingerprint with its secret, the SHA-256 of the victim's file and a random
salt. Its canonical form (JSON with sorted keys, no spaces, ASCII) is hashed with SHA-256. Publish
the hash with a date before the victim is released: in a repository, a journal, a time-stamping
service. It reveals nothing, since the salt has 256 bits. Opening means to show the record: anyone
can hash it again and repeat the test.
"""

import json
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.extraction.ownership.fingerprint import Fingerprint
from divqat_brevitas.files import read_json, replacing, sha256_text

Record = dict[str, Any]
_KIND, _VERSION = "divqat ownership commitment", 1


def commit(
    model_sha256: str, classes: int, share: float = 0.005, secret: str | None = None
) -> tuple[Record, Record]:
    """Draw a fingerprint and commit to it and to a model.

    Args:
        model_sha256: of the victim's file, in hexadecimal; the claim is about this content.
        classes: number of the victim's classes.
        share: of the responses that change.
        secret: 64 hexadecimal digits; None draws them from the system's source of randomness.

    Returns:
        The commitment, to publish, and its opening, to keep.

    Example:
        >>> commitment, opening = commit("0" * 64, classes=10)
        >>> open_commitment(commitment, opening).share
        0.005
    """
    secret = secrets.token_hex(32) if secret is None else secret
    opening = {
        "model_sha256": model_sha256,
        "salt": secrets.token_hex(32),
        "fingerprint": asdict(Fingerprint(secret, classes, share)),
    }
    return {"kind": _KIND, "version": _VERSION, "sha256": _hash(opening)}, opening


def open_commitment(commitment: Record, opening: Record) -> Fingerprint:
    """The fingerprint that was committed to.

    Raises:
        CheckFailedError: the opening is not the one that was committed to.
        InputError: one of the two is something else.
    """
    if (commitment.get("kind"), commitment.get("version")) != (_KIND, _VERSION):
        raise InputError(
            f"this is no commitment of version {_VERSION}: give the file that "
            "`divqat ownership commit` wrote."
        )
    if _hash(opening) != commitment.get("sha256"):
        raise CheckFailedError(
            "the opening does not belong to this commitment: its SHA-256 is another one. Nothing "
            "was asked of the suspect. Restore both files as `divqat ownership commit` wrote them."
        )
    return fingerprint_of(opening)


def fingerprint_of(opening: Record) -> Fingerprint:
    """The fingerprint in an opening.

    Raises:
        InputError: there is none in it.
    """
    try:
        return Fingerprint(**opening["fingerprint"])
    except (KeyError, TypeError) as e:
        raise InputError(
            f"this opening holds no fingerprint ({e!r}): give the file that "
            "`divqat ownership commit` wrote."
        ) from e


def read_record(path: Path) -> Record:
    """Read a commitment or an opening.

    Raises:
        InputError: no such file, or no JSON object in it.
    """
    record = read_json(path)
    if not isinstance(record, dict):
        raise InputError(f"{path} must hold one JSON object.")
    return record


def write_opening(path: Path, opening: Record) -> None:
    """Write an opening, whole or not at all, for its owner's eyes only."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(opening, indent=2) + "\n", encoding="utf-8")
    path.chmod(0o600)


def _hash(record: Record) -> str:
    return sha256_text(json.dumps(record, sort_keys=True, separators=(",", ":")))

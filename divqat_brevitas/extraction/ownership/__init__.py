"""Proof that a model is a clone: a secret fingerprint, a commitment to it, and a test by labels."""

from divqat_brevitas.extraction.ownership.commitment import (
    commit,
    fingerprint_of,
    open_commitment,
    read_record,
    write_opening,
)
from divqat_brevitas.extraction.ownership.fingerprint import (
    Fingerprint,
    FingerprintedResponses,
    TriggerLog,
    Triggers,
)
from divqat_brevitas.extraction.ownership.removal import fine_tuned, pruned, requantized
from divqat_brevitas.extraction.ownership.significance import (
    OwnershipTest,
    Suspect,
    SuspectKind,
    binomial_p_value,
    false_claims,
    labels_of,
    ownership_test,
)

__all__ = [
    "Fingerprint",
    "FingerprintedResponses",
    "OwnershipTest",
    "Suspect",
    "SuspectKind",
    "TriggerLog",
    "Triggers",
    "binomial_p_value",
    "commit",
    "false_claims",
    "fine_tuned",
    "fingerprint_of",
    "labels_of",
    "open_commitment",
    "ownership_test",
    "pruned",
    "read_record",
    "requantized",
    "write_opening",
]

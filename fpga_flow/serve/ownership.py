"""Ownership of a model file: a commitment before it is served, and the test of a suspect."""

from dataclasses import asdict, dataclass
from pathlib import Path

from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.extraction.ownership import (
    FingerprintedResponses,
    OwnershipTest,
    Suspect,
    SuspectKind,
    TriggerLog,
    commit,
    fingerprint_of,
    open_commitment,
    ownership_test,
    read_record,
    write_opening,
)
from divqat_brevitas.files import sha256_file, write_json
from divqat_brevitas.short_repr import ShortRepr

COMMITMENT, OPENING, TRIGGERS = "commitment.json", "opening.json", "triggers.jsonl"


@dataclass(frozen=True)
class CommitmentFiles(ShortRepr):
    """What `divqat ownership commit` wrote.

    Attributes:
        commitment: to publish, with a date, before the model is served.
        opening: to keep: it holds the secret.
        sha256: the published hash, in hexadecimal.
    """

    commitment: Path
    opening: Path
    sha256: str


def commit_ownership(model: Path | str, out: Path | str, share: float = 0.005) -> CommitmentFiles:
    """Draw a fingerprint for a model, and write a commitment to it: `divqat ownership commit`.

    Args:
        model: a QONNX file.
        out: folder of the files; it must hold no commitment yet.
        share: of the responses that will show a secret label, a fraction of 1.

    Raises:
        InputError: no model, a share out of range, or a commitment that is there already.

    Example:
        >>> files = commit_ownership("model.onnx", "owner")
        >>> files.commitment.name, len(files.sha256)
        ('commitment.json', 64)
    """
    from fpga_flow.lowering import lower

    model, out = Path(model), Path(out)
    if not model.is_file():
        raise InputError(f"there is no file {model}. Export one with fpga_flow.export_qonnx.")
    for name in (COMMITMENT, OPENING):
        if (out / name).exists():
            raise InputError(
                f"{out / name} is there already; a lost opening cannot be made again. Name another "
                "folder with --out."
            )
    commitment, opening = commit(sha256_file(model), lower(model).classes, share)
    write_opening(out / OPENING, opening)
    write_json(out / COMMITMENT, commitment)
    return CommitmentFiles(out / COMMITMENT, out / OPENING, commitment["sha256"])


def fingerprinted(opening: Path, model_sha256: str) -> FingerprintedResponses:
    """The fingerprint of an opening, as the defence of a served model, with its log beside it.

    Args:
        opening: from :func:`commit_ownership`.
        model_sha256: of the file that is served.

    Raises:
        CheckFailedError: the opening is of another model.
        InputError: no opening, or a damaged log.
    """
    record = read_record(opening)
    fingerprint = fingerprint_of(record)
    if record.get("model_sha256") != model_sha256:
        raise CheckFailedError(
            f"{opening} is of another model than the one that is served: commit to this one with "
            "`divqat ownership commit`."
        )
    return FingerprintedResponses(fingerprint, TriggerLog(opening.with_name(TRIGGERS)))


def check_ownership(
    commitment: Path | str,
    suspect: Path | str | Suspect,
    *,
    opening: Path | str | None = None,
    triggers: Path | str | None = None,
    most: int = 200,
    engine: str = "integer",
    token: str | None = None,
) -> OwnershipTest:
    """Ask a suspect for labels of the logged triggers: `divqat ownership test`.

    Args:
        commitment: the published file.
        suspect: a QONNX file or a hardware design's folder, the URL of a server, or any predictor,
            torch module or :class:`divqat_brevitas.extraction.Victim`.
        opening: the file that was kept; None: ``opening.json`` beside the commitment.
        triggers: the log of `divqat serve`; None: ``triggers.jsonl`` beside the commitment.
        most: queries at most.
        engine: of a suspect that is a file or a folder.
        token: of a suspect that is a server.

    Raises:
        CheckFailedError: the opening is not the one that was committed to.
        InputError: a file is missing or damaged, or the suspect takes other images.
        RestError: the server cannot be reached, or refuses.

    Example:
        >>> check_ownership("owner/commitment.json", "suspect.onnx").p_value  # doctest: +SKIP
        4.1e-12
    """
    folder = Path(commitment).parent
    fingerprint = open_commitment(
        read_record(Path(commitment)),
        read_record(folder / OPENING if opening is None else Path(opening)),
    )
    log = folder / TRIGGERS if triggers is None else Path(triggers)
    if not log.is_file():
        raise InputError(
            f"there is no log of triggers {log}. Serve the model with "
            "`divqat serve MODEL.onnx --fingerprint OPENING.json`."
        )
    asked = TriggerLog(log).triggers()
    return ownership_test(fingerprint, asked, _loaded(suspect, engine, token), most)


def write_row(
    path: Path, result: OwnershipTest, *, victim: str, suspect: str, kind: SuspectKind
) -> None:
    """Write a test as a file of results; a run's page shows those in ``attack/ownership/``."""
    write_json(
        path, [{"victim": victim, "suspect": suspect, "suspect_kind": kind, **asdict(result)}]
    )


def _loaded(suspect: Path | str | Suspect, engine: str, token: str | None) -> Suspect:
    if isinstance(suspect, str) and suspect.startswith(("http://", "https://")):
        from fpga_flow.serve.client import RestVictim

        return RestVictim(suspect, token)
    if isinstance(suspect, str | Path):
        from fpga_flow.engines import load_engine

        if not Path(suspect).exists():
            raise InputError(f"there is no suspect {suspect}: name a QONNX file, folder or URL.")
        return load_engine(suspect, engine)
    return suspect

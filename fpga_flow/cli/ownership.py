"""Commands that prove where a model comes from: `divqat ownership commit|test`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fpga_flow.cli.options import PATH, Commands, emit, json_option

if TYPE_CHECKING:
    from divqat_brevitas.extraction.ownership import SuspectKind


@click.group(
    cls=Commands,
    epilog="""divqat ownership commit model.onnx --out owner
              divqat serve model.onnx --fingerprint owner/opening.json
              divqat ownership test owner/commitment.json suspect.onnx""",
)
def ownership() -> None:
    """Commit to a secret fingerprint of a model's responses, and recognise clones by it."""


@ownership.command(
    "commit",
    epilog="""divqat ownership commit model.onnx --out owner
              divqat ownership commit model.onnx --out owner --share 0.01""",
)
@click.argument("model", metavar="MODEL.onnx", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder of commitment.json and opening.json.")
@click.option(
    "--share", type=float, default=0.005, show_default=True, help="Responses with a secret label."
)
@json_option
def commit_command(model: Path, out: Path, share: float, as_json: bool) -> None:
    """Draw a secret fingerprint for a model, and commit to both.

    Publish commitment.json, or only its hash, with a date, before the model is served. Keep
    opening.json secret: who has it knows the secret labels.
    """
    from fpga_flow.serve.ownership import commit_ownership

    files = commit_ownership(model, out, share)
    emit(
        as_json,
        lambda: {name: str(value) for name, value in vars(files).items()},
        lambda: f"publish {files.commitment} ({files.sha256})\nkeep {files.opening} secret",
    )


@ownership.command(
    "test",
    epilog="""divqat ownership test owner/commitment.json suspect.onnx
              divqat ownership test owner/commitment.json http://127.0.0.1:8080 --json
              divqat ownership test owner/commitment.json s.onnx --out s.json""",
)
@click.argument("commitment", metavar="COMMITMENT", type=PATH)
@click.argument("suspect", metavar="MODEL.onnx|DESIGN|URL")
@click.option("--opening", type=PATH, help="The opening [opening.json beside the commitment].")
@click.option("--triggers", type=PATH, help="The log [triggers.jsonl beside the commitment].")
@click.option("--level", type=click.FloatRange(0, 1), default=1e-6, show_default=True)
@click.option("--most", type=click.IntRange(1), default=200, show_default=True, help="Queries.")
@click.option("--engine", default="integer", show_default=True, help="Of a suspect's file.")
@click.option("--token", help="Of a suspect's server.")
@click.option(
    "--out",
    type=PATH,
    help="Keep the row; in RUN/attack/ownership/, `divqat report RUN` shows it.",
)
@click.option("--victim", default="divqat", show_default=True, help="Its name in the row.")
@click.option(
    "--kind",
    type=click.Choice(["clone", "independent", "removal"]),
    default="clone",
    show_default=True,
    help="What the suspect is known to be, for the row.",
)
@json_option
def test_command(
    commitment: Path,
    suspect: str,
    opening: Path | None,
    triggers: Path | None,
    level: float,
    most: int,
    engine: str,
    token: str | None,
    out: Path | None,
    victim: str,
    kind: "SuspectKind",
    as_json: bool,
) -> int:
    """Test whether a suspect was trained on the responses of the model.

    The suspect is only asked for labels of logged images. The p-value is the probability of so
    many secret labels from a model that was made without the responses. Exit code 0 if it is at
    most --level, 1 if it is not, or if the opening is not the one that was committed to.
    """
    from fpga_flow.serve.ownership import check_ownership, write_row

    result = check_ownership(
        commitment,
        suspect,
        opening=opening,
        triggers=triggers,
        most=most,
        engine=engine,
        token=token,
    )
    if out is not None:
        write_row(out, result, victim=victim, suspect=Path(suspect).name, kind=kind)
    recognised = result.p_value <= level
    emit(
        as_json,
        lambda: {**vars(result), "level": level, "recognised": recognised},
        lambda: (
            f"{result.rate:.1%} of {result.triggers} triggers have their secret label, "
            f"{result.null_rate:.1%} by chance: p = {result.p_value:.2g}\n"
            f"{'trained on' if recognised else 'not shown to be trained on'} the model's responses "
            f"(level {level:g})"
        ),
    )
    return 0 if recognised else 1

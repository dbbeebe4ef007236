"""Commands for owners of a board: `divqat board selftest` and `divqat board meter`."""

import warnings
from pathlib import Path

import click

from fpga_flow.cli.options import PATH, Commands, emit, json_option


@click.group(
    cls=Commands,
    epilog="""divqat board selftest chip --port /dev/ttyUSB0 --board "ULX3S 85F v3.0.8"
              divqat board meter chip --out meter.toml""",
)
def board() -> None:
    """Test a chip on a board, and record the power of it."""


@board.command(
    "selftest",
    epilog="""divqat board selftest chip --port simulation
              divqat board selftest chip --port /dev/ttyUSB0 --board "ULX3S 85F v3.0.8"
              divqat board selftest chip --port COM3 --board "ULX3S 85F" --power meter.toml""",
)
@click.argument("built", metavar="DIR", type=PATH)
@click.option("--port", required=True, help="Serial port, FTDI URL (ft245), or simulation.")
@click.option("--board", metavar="NAME", help="What the record calls the board.")
@click.option("--images", type=click.IntRange(1), help="Images for the rate [1000].")
@click.option("--power", type=PATH, help="A power meter's reading (divqat board meter).")
@click.option("--out", type=PATH, help="The record [DIR/selftest.json].")
@json_option
def selftest(
    built: Path,
    port: str,
    board: str | None,
    images: int | None,
    power: Path | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Run a design's reference vectors on its chip, and record what comes back.

    DIR is what `divqat compile` built for a target of the open flow. Load its bitstream first.
    Every response is compared with the integer engine's. Latency and rate are measured over the
    link, and are the link's; the core's own are simulated. The record is JSON, written whole.

    With --port simulation the chip runs in Verilator: no board, and times of its simulated clock.
    Exit code 1 if a response differs or the chip stops; 2 if the board holds another design. Not
    run on a board so far.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries warn of is for developers
        from fpga_flow.api import board_selftest

        result = board_selftest(built, port, board=board, images=images, power=power, out=out)
    emit(as_json, lambda: result.document() | {"record": str(result.file)}, lambda: result)
    return 0 if result.passed else 1


@board.command("meter", epilog="divqat board meter chip --out meter.toml")
@click.argument("built", metavar="DIR", type=PATH)
@click.option("--out", type=PATH, default=Path("meter.toml"), show_default=True)
@json_option
def meter(built: Path, out: Path, as_json: bool) -> None:
    """Write a template for a USB power meter's reading of a board.

    Fill it in and give it to `divqat board selftest --power`, which quotes it in its record. The
    reading belongs to the bitstream in DIR. Without a reading no watts are printed.
    """
    from divqat_brevitas.files import sha256_file
    from fpga_flow.host.power import write_template
    from fpga_flow.synthesis import BitstreamReport

    digest = sha256_file(BitstreamReport.load(built / "bitstream").bitstream)
    write_template(out, digest)
    emit(as_json, lambda: {"file": str(out), "bitstream_sha256": digest}, lambda: f"fill in {out}")

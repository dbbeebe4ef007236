"""A USB power meter's reading: a template that a board's owner fills in, read and checked.

Power is never estimated here. Without a reading there are no watts.
"""

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_toml, write_text
from fpga_flow.records import reason

_TEMPLATE = """\
# Power of a board, read from a USB power meter between the host and the board.
# Idle: the bitstream is loaded, and nothing is sent. Load: while this runs:
#   divqat board selftest DIR --port PORT --board NAME --images 100000
# Fill in every line; only the notes may stay empty.
bitstream_sha256 = "{sha256}"  # written by divqat: of the bitstream on the board
meter = ""          # make and model
date = ""           # of the reading, YYYY-MM-DD
seconds = 0         # over which idle_w and load_w are averaged, at least 10
resolution_w = 0.0  # the last digit that the meter shows, in watts
idle_w = 0.0        # watts
load_w = 0.0        # watts
notes = ""          # what else the port supplies, room temperature, ...
"""

Watts = Annotated[float, Field(gt=0, le=240, strict=True)]  # USB delivers 240 W at most
Text = Annotated[str, StringConstraints(max_length=1000, strip_whitespace=True)]


@dataclass(frozen=True)
class PowerReading:
    """What a USB power meter showed for the whole board.

    Attributes:
        bitstream_sha256: of the bitstream that was on the board.
        meter: make and model of the meter.
        date: of the reading.
        seconds: over which the watts are averaged, at least 10.
        resolution_w: last digit that the meter shows, in watts.
        idle_w: watts with the bitstream loaded, nothing sent.
        load_w: watts while the self-test runs.
        notes: whatever the owner adds.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    bitstream_sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    meter: Annotated[Text, Field(min_length=1)]
    date: datetime.date
    seconds: Annotated[float, Field(ge=10, le=1e6, strict=True)]
    resolution_w: Watts
    idle_w: Watts
    load_w: Watts
    notes: Text = ""

    def joules_per_image(self, images_per_s: float) -> float:
        """Energy of the whole board an image, as MLPerf Tiny counts: power under load over rate."""
        return self.load_w / images_per_s

    def record(self) -> dict[str, Any]:
        """The reading as JSON values."""
        record: dict[str, Any] = TypeAdapter(PowerReading).dump_python(self, mode="json")
        return record


def write_template(file: Path, bitstream_sha256: str) -> None:
    """Write a reading to be filled in.

    Raises:
        InputError: the file exists; it may hold a reading.

    Example:
        >>> write_template(Path("meter.toml"), "0" * 64)
        >>> read_power(Path("meter.toml"))
        Traceback (most recent call last):
        ...
        divqat_brevitas.errors.InputError: meter.toml: meter: string should have at least 1 ...
    """
    if Path(file).exists():
        raise InputError(f"{file} exists and may hold a reading. Name another file.")
    write_text(file, _TEMPLATE.format(sha256=bitstream_sha256))


def read_power(file: Path) -> PowerReading:
    """Read a filled-in template.

    Raises:
        InputError: no such file, not TOML, a line that is missing, unknown or not filled in, watts
            outside of what USB delivers, or less power under load than idle.
    """
    table = read_toml(file, "power reading")
    try:
        reading = TypeAdapter(PowerReading).validate_python(table)
    except ValidationError as e:
        raise InputError(
            f"{file}: {reason(e)}. Fill in every line of the template that `divqat board meter` "
            "writes; power is in watts."
        ) from e
    if reading.load_w < reading.idle_w - reading.resolution_w:
        raise InputError(
            f"{file}: load_w = {reading.load_w:g} is below idle_w = {reading.idle_w:g}. Were the "
            "two readings exchanged?"
        )
    return reading

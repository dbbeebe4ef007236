"""A bitstream read back: every bit understood, and the same logic and wires in it."""

import re
from typing import NamedTuple

from divqat_brevitas.files import sha256_file
from fpga_flow.devices.ecp5 import CONFIG
from fpga_flow.synthesis.bitstream_report import BitstreamReport
from fpga_flow.synthesis.synth import LOGS
from fpga_flow.synthesis.tools import Deadline, run_tool

READ_BACK = "read-back.config"
# Which of a slice's signals leaves by a pin: without a bit of its own for the usual one.
_OUTPUT = re.compile(r"arc: F\d ")
# An unprogrammed LUT: no bit tells it from a LUT that is always 1.
_BLANK = re.compile(r"word: \S+\.INIT 1+")


class ReadBack(NamedTuple):
    """How a bitstream compares with what nextpnr wrote.

    ``same_bits``: unpacked and packed again it is the same file. ``compared`` counts LUT tables and
    wires of the logic tiles, and words of block RAM; ``differing`` are those only one side has.
    """

    same_bits: bool
    compared: int
    differing: tuple[str, ...]


def read_back(report: BitstreamReport) -> ReadBack:
    """Unpack ``chip.bit``, compare it with ``design.config``, and pack it again.

    The unpacked configuration stays beside the bitstream. Other settings than those compared have
    several spellings.
    """
    folder, deadline = report.folder, Deadline(300)
    unpack = ["--input", report.bitstream.name, "--textcfg", READ_BACK]
    run_tool("ecpunpack", unpack, folder, folder / LOGS / "ecpunpack.log", deadline)
    again = folder / "read-back.bit"
    pack = ["--compress", "--input", READ_BACK, "--bit", again.name]
    run_tool("ecppack", pack, folder, folder / LOGS / "ecppack-again.log", deadline)
    same = sha256_file(report.bitstream) == sha256_file(again)
    again.unlink()
    written, unpacked = (logic((folder / name).read_text("utf-8")) for name in (CONFIG, READ_BACK))
    return ReadBack(same, len(written), tuple(sorted(written ^ unpacked)))


def logic(config: str) -> set[str]:
    r"""LUT tables, wires and block RAM words of a text configuration, each with its place.

    Example:
        >>> sorted(logic(".tile R2C3:PLC2\narc: A0 H02W0701\nenum: SLICEA.MODE LOGIC\n"))
        ['.tile R2C3:PLC2 arc: A0 H02W0701']
    """
    found: set[str] = set()
    section, row = "", 0
    for raw in config.splitlines():
        line = raw.strip()
        if line.startswith("."):
            section, row = line, 0
        elif section.startswith(".bram_init") and line:
            # A block RAM's words have their place; the other settings are a set.
            found.add(f"{section} {row}: {line}")
            row += 1
        elif section.endswith(":PLC2") and _telling(line):
            found.add(f"{section} {line}")
    return found


def _telling(line: str) -> bool:
    """Whether it is a table or a wire that the bitstream has bits for."""
    if not line.startswith(("arc:", "word:")):
        return False
    return not _OUTPUT.match(line) and not _BLANK.fullmatch(line)

"""A bitstream read back: every bit understood, and the same logic and wires in it."""

import re
from collections.abc import Set
from dataclasses import dataclass

from divqat_brevitas.files import sha256_file
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.synthesis.bitstream_report import BITSTREAM, CONFIG, BitstreamReport
from fpga_flow.synthesis.synth import LOGS
from fpga_flow.synthesis.tools import Deadline, run_tool

READ_BACK = "read-back.config"
_PACKED_AGAIN = "read-back.bit"
_LOGIC = ":PLC2"
# Which of a slice's signals leaves by a pin: without a bit of its own for the usual one.
_OUTPUT = re.compile(r"arc: F\d ")
# An unprogrammed LUT: no bit tells it from a LUT that is always 1.
_BLANK = re.compile(r"word: \S+\.INIT 1+")


@dataclass(frozen=True)
class ReadBack(ShortRepr):
    """How a bitstream compares with what nextpnr wrote.

    Attributes:
        same_bits: unpacked and packed again it is the same file: no bit was lost on the way.
        compared: LUT tables and wires of the logic tiles, and words of block RAM.
        differing: those that only one side has.
    """

    same_bits: bool
    compared: int
    differing: tuple[str, ...]


def read_back(report: BitstreamReport, *, timeout_s: float = 300) -> ReadBack:
    """Unpack ``chip.bit``, compare it with ``design.config``, and pack it again.

    The unpacked configuration stays beside the bitstream, as ``read-back.config``. Compared are
    the tables of the LUTs, the wires between logic cells and the contents of block RAMs; other
    settings have several spellings.

    Raises:
        ToolMissingError: ecpunpack or ecppack is not installed.
        ToolFailedError: one cannot read its file.
    """
    folder, deadline = report.folder, Deadline(timeout_s)
    unpack = ["--input", BITSTREAM, "--textcfg", READ_BACK]
    run_tool("ecpunpack", unpack, folder, folder / LOGS / "ecpunpack.log", deadline)
    pack = ["--compress", "--input", READ_BACK, "--bit", _PACKED_AGAIN]
    run_tool("ecppack", pack, folder, folder / LOGS / "ecppack-again.log", deadline)
    again = folder / _PACKED_AGAIN
    same = sha256_file(report.bitstream) == sha256_file(again)
    again.unlink()
    written = logic((folder / CONFIG).read_text(encoding="utf-8"))
    found = logic((folder / READ_BACK).read_text(encoding="utf-8"))
    return ReadBack(same, len(written), tuple(sorted(written ^ found)))


def logic(config: str) -> Set[str]:
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
        elif section.endswith(_LOGIC) and _telling(line):
            found.add(f"{section} {line}")
    return found


def _telling(line: str) -> bool:
    """Whether it is a table or a wire that the bitstream has bits for."""
    if not line.startswith(("arc:", "word:")):
        return False
    return not _OUTPUT.match(line) and not _BLANK.fullmatch(line)

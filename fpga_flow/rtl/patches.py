"""Changes to finn-rtllib that Verilator or yosys' SystemVerilog reader need.

They are made on a copy, while a design is generated. Each says where it applies and how often;
a library in which it does not apply exactly is another version, and refused.
"""

import re
from dataclasses import dataclass

from divqat_brevitas.errors import ToolMissingError

TESTED = "1.6.1"


@dataclass(frozen=True)
class Patch:
    """One replacement in one file of finn-rtllib.

    Attributes:
        file: base name of the file.
        pattern: regular expression (dot matches newline).
        replacement: as ``re.sub`` takes it.
        count: how often the pattern occurs.
        reason: what is refused without it.
    """

    file: str
    pattern: str
    replacement: str
    count: int
    reason: str

    def apply(self, text: str, version: str) -> str:
        """``text`` with the replacement made.

        Raises:
            ToolMissingError: the pattern does not occur exactly ``count`` times.
        """
        patched, found = re.subn(self.pattern, self.replacement, text, flags=re.DOTALL)
        if found != self.count:
            raise ToolMissingError(
                f"finn-plus {version} is not the version this was made for: in its finn-rtllib, "
                f"{self.file} has {found} places like /{self.pattern[:40]}.../ where {self.count} "
                f"are expected. Install finn-plus {TESTED} (`pip install --no-deps "
                f"finn-plus=={TESTED}`)."
            )
        return patched


PATCHES = (
    Patch(
        "fifo.sv",
        r"typedef struct \{[^}]*\}\s*abits_t;\s*function abits_t INIT_ABITS.*?endfunction[^\n]*",
        r"""localparam int unsigned  ABITS_ALL = $clog2(DEPTH_REQ);
	localparam int unsigned  ABITS_REST = $clog2(DEPTH_REQ - 2**(ABITS_ALL-1));
	localparam bit  ABITS_SPLIT = (ABITS_ALL > MIN_ABITS) && (ABITS_REST < ABITS_ALL - 1);
	localparam int unsigned  ABITS_lo = ABITS_ALL - ABITS_SPLIT;
	localparam int unsigned  ABITS_hi = !ABITS_SPLIT? 0 : ABITS_REST < 1? 1 : ABITS_REST;""",
        1,
        "Verilator: a constant function that returns a struct",
    ),
    Patch("fifo.sv", r"localparam abits_t\s+ABITS\s*=[^;]*;", "", 1, "goes with the former"),
    Patch("fifo.sv", r"\bABITS\.(lo|hi)\b", r"ABITS_\1", 27, "goes with the former"),
    Patch("fifo.sv", r"`default_nettype \w+", "", 2, "slang: inside a module"),
    Patch("vpc.sv", r"`default_nettype \w+", "", 2, "slang: inside a module"),
    Patch(
        "add_multi.sv",
        r"(\tif\(L < 1\) begin : genTrivial.*?)"
        r"(\t\ttypedef int unsigned  leaf_load_t\[.*?endfunction : init_leaf_loads\n)",
        r"\2\1",
        1,
        "Verilator, slang: a constant function inside a generate block",
    ),
    Patch(
        "thresholding.sv",
        r"p\.ptr\[M-1:SN\+1\] < 2\*\*stage",
        "(p.ptr[M-1:0] >> (SN+1)) < 2**stage",
        1,
        "slang: a slice of no bits in the first stage",
    ),
    Patch(
        "mvu.sv",
        r"\tif\(1\) begin : blkRecoveryWatch.*?end : blkRecoveryWatch",
        "",
        1,
        "slang: a delay in an initial block",
    ),
)


def patched(name: str, text: str, version: str) -> str:
    """A library file with all its patches.

    Args:
        name: base name of the file.
        text: its content.
        version: of finn-plus, for the message.

    Raises:
        ToolMissingError: a patch does not apply.
    """
    for patch in PATCHES:
        if patch.file == name:
            text = patch.apply(text, version)
    return text

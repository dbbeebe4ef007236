"""The template of a power meter's reading, filled in as a board's owner does."""

import re
from pathlib import Path

from fpga_flow.host.power import write_template

GOOD = {
    "meter": '"FNB58"',
    "date": '"2026-11-30"',
    "seconds": "60",
    "resolution_w": "0.001",
    "idle_w": "0.75",
    "load_w": "1.25",
}


def filled(file: Path, sha256: str = "a" * 64, **changes: str) -> Path:
    """A reading of the bitstream with that hash; ``changes`` are other values, as TOML."""
    write_template(file, sha256)
    text = file.read_text()
    for name, value in {**GOOD, **changes}.items():
        text, count = re.subn(rf"^{name} = \S+", f"{name} = {value}", text, flags=re.MULTILINE)
        assert count == 1
    file.write_text(text)
    return file

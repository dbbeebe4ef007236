"""Many modules side by side in one simulation, each between a halting source and a halting sink."""

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fpga_flow.engines.verilator import verilate
from fpga_flow.rtl.library import OURS

_HERE = Path(__file__).parent
_ENDS = """
// Words of a file, each offered at random moments and then kept on offer.
module source #(int unsigned W = 1, N = 1, SEED = 1, PERCENT = 100, parameter FILE = "")(
	input logic clk, rst, output logic [W-1:0] dat, output logic vld, input logic rdy
);
	logic [W-1:0] mem[N];
	initial $readmemh(FILE, mem);
	logic [31:0] lfsr;
	int unsigned ptr;
	assign dat = vld? mem[ptr] : 'x;
	always_ff @(posedge clk) begin
		if(rst) begin
			lfsr <= SEED;
			ptr <= 0;
			vld <= 0;
		end
		else begin
			automatic int unsigned nxt = ptr + (vld && rdy);
			lfsr <= { lfsr[30:0], lfsr[31] ^ lfsr[21] ^ lfsr[1] ^ lfsr[0] };
			ptr <= nxt;
			vld <= nxt < N && ((vld && !rdy) || lfsr % 100 < PERCENT);
		end
	end
endmodule

// Prints what it takes, at random moments.
module sink #(int unsigned W = 1, N = 1, SEED = 1, PERCENT = 100, parameter NAME = "")(
	input logic clk, rst, input logic [W-1:0] dat, input logic vld, output logic rdy,
	output logic done
);
	logic [31:0] lfsr;
	int unsigned count;
	assign done = count >= N;
	always_ff @(posedge clk) begin
		if(rst) begin
			lfsr <= ~SEED;
			rdy <= 0;
			count <= 0;
		end
		else begin
			lfsr <= { lfsr[30:0], lfsr[31] ^ lfsr[21] ^ lfsr[1] ^ lfsr[0] };
			rdy <= lfsr % 100 < PERCENT;
			if(vld && rdy) begin
				count <= count + 1;
				$display("%s %h", NAME, dat);
			end
		end
	end
endmodule
"""


@dataclass
class Case:
    """One module under test.

    Attributes:
        name: of the case.
        text: its instance, between ``idat/ivld/irdy`` and ``odat/ovld/ordy``, with ``clk, rst``.
        in_bits: width of its input, and ``out_bits``, of its output.
        beats: what goes in.
        expected: what has to come out, all of it and nothing else, but see ``endless``.
        files: memory files by name.
        endless: more comes out than is looked at.
        rates: percent of cycles in which the source offers and the sink takes.
    """

    name: str
    text: str
    in_bits: int
    out_bits: int
    beats: Sequence[int]
    expected: Sequence[int]
    files: Mapping[str, str] = field(default_factory=dict)
    endless: bool = False
    rates: tuple[int, int] = (100, 100)


def run(
    cases: Sequence[Case], folder: Path, cycles: int = 30000, more: Sequence[Path] = ()
) -> dict[str, list[int]]:
    """The beats that came out of every case, up to a hundred cycles after all are complete.

    ``more`` are files of modules beside those of ``rtl/sv``.
    """
    ours = [*sorted(OURS.glob("*.sv")), *more]
    for path in ours:
        (folder / path.name).write_text(path.read_text())
    blocks, done = [], []
    for seed, case in enumerate(cases, start=12345):
        (folder / f"{case.name}.hex").write_text(hexes(case.beats))
        for name, text in case.files.items():
            (folder / name).write_text(text)
        done.append(f"{case.name}_done")
        blocks.append(f"""
	wire {case.name}_done;
	if(1) begin : {case.name}
		wire [{case.in_bits - 1}:0] idat;
		wire [{case.out_bits - 1}:0] odat;
		wire ivld, irdy, ovld, ordy;
		source #(.W({case.in_bits}), .N({len(case.beats)}), .SEED({seed * 2654435761 % 2**31}),
			.PERCENT({case.rates[0]}), .FILE("{case.name}.hex")
		) from_file (.clk, .rst, .dat(idat), .vld(ivld), .rdy(irdy));
		{case.text}
		sink #(.W({case.out_bits}), .N({len(case.expected)}), .SEED({seed * 40503}),
			.PERCENT({case.rates[1]}), .NAME("{case.name}")
		) to_console (.clk, .rst, .dat(odat), .vld(ovld), .rdy(ordy), .done({case.name}_done));
	end""")
    (folder / "bench.sv").write_text(
        "`timescale 1ns/1ps\n"
        + _ENDS
        + "module bench(input logic clk, rst, output logic done);\n"
        + "\n".join(blocks)
        # A hundred cycles more, for beats too many
        + "\n\tint unsigned quiet;\n\tassign done = quiet >= 100;\n\talways_ff @(posedge clk)"
        + f"\n\t\tquiet <= rst || !({' && '.join(done)})? 0 : quiet + 1;\nendmodule\n"
    )
    sources = [*(path.name for path in ours), "bench.sv"]
    executable = verilate(folder, sources, "bench", driver=_HERE / "bench.cpp", cflags=("-O0",))
    output = subprocess.run(
        [str(executable), str(cycles)], cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, list[int]] = {case.name: [] for case in cases}
    for line in output.splitlines():
        name, _, value = line.partition(" ")
        if name in found:
            found[name].append(int(value, 16))
    return found


def hexes(words: Sequence[int]) -> str:
    """A memory file."""
    return "".join(f"{word:x}\n" for word in words)


def pack(values: Iterable[int], bits: int) -> int:
    """Integers as lanes of one beat, the first lowest."""
    return sum((int(value) & ((1 << bits) - 1)) << (i * bits) for i, value in enumerate(values))

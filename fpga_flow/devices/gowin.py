"""Gowin GW2A: yosys' ``synth_gowin``, nextpnr-himbaechel, Project Apicula. Not run on a board.

Arguments of the tools are those of Apicula's own examples for the Tang Nano 20K
(YosysHQ/apicula, ``examples/Makefile``).
"""

from fpga_flow.devices.family import (
    Clocks,
    Family,
    OpenTarget,
    Pins,
    PllLimits,
    Resources,
    Tools,
)

_PINS, _BITSTREAM, _ROUTED = "pins.cst", "chip.fs", "routed.json"


def _constraints(pins: Pins, clocks: Clocks) -> list[str]:
    """Lines of a ``.cst`` file. It knows no clocks: nextpnr is given the core's as ``--freq``."""
    lines = []
    for port, (site, settings) in pins.items():
        lines += [f'IO_LOC "{port}" {site};', f'IO_PORT "{port}" {settings};']
    return lines


_FLIP_FLOPS = frozenset(
    f"DFF{edge}{control}{enable}"
    for edge in ("", "N")
    for control in ("", "S", "R", "P", "C")
    for enable in ("", "E")
)
_BLOCK_RAMS = ("SP", "SPX9", "SDPB", "SDPX9B", "DPB", "DPX9B", "pROM", "pROMX9")

GOWIN = Family(
    name="gowin",
    synth="synth_gowin -family gw2a",
    core_flags="-noiopads",
    # A carry cell is in the place of a LUT; the multiplexers between LUTs (MUX2_LUT5 and up) are in
    # places of their own. A 16x4 LUT RAM takes the LUTs of three slices. Multipliers are counted
    # as those of 9x9 bits, of which one of 18x18 is two.
    cells={
        **{f"LUT{inputs}": {"lut": 1} for inputs in (1, 2, 3, 4)},
        "ALU": {"lut": 1},
        "RAM16SDP4": {"lut": 6, "lutram": 1},
        **{name: {"ff": 1} for name in sorted(_FLIP_FLOPS)},
        **{name: {"bram": 1} for name in _BLOCK_RAMS},
        "MULT9X9": {"dsp": 1},
        "MULT18X18": {"dsp": 2},
    },
    flip_flops=_FLIP_FLOPS,
    placed={
        "LUT4": ("lut", 1),
        "ALU": ("lut", 1),
        "RAM16SDP4": ("lut", 6),
        "DFF": ("ff", 1),
        "BSRAM": ("bram", 1),
        "MULT9X9": ("dsp", 1),
        "MULT18X18": ("dsp", 2),
    },
    tools=Tools(
        place="nextpnr-himbaechel-gowin",
        place_arguments=("--vopt", f"cst={_PINS}"),
        pack="gowin_pack",
        pack_arguments=("-c", "-o", _BITSTREAM, _ROUTED),
        pins=_PINS,
        bitstream=_BITSTREAM,
        more=(),
    ),
    # Apicula's ``gowin_pll``, which has them from Gowin DS226E: GW2AR-18 of grade C8/I7.
    pll=PllLimits(
        name="a GW2AR",
        source="pll_gowin",
        takes_input_mhz=True,
        inputs=(3, 500),
        outputs=(3.90625, 625),
        detector=(3, 500),
        oscillator=(500, 1250),
        input_dividers=64,
        feedback_dividers=64,
        output_dividers=(2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128),
    ),
    constraints=_constraints,
    comment="//",
    netlist_models=False,
    multipliers="",
    estimate=" (weights fitted to ECP5)",
)

_PART = "GW2AR-LV18QN88C8/I7"
# The clock's pin and five others of ``fpga_flow.synthesis.synth.bare_top``.
_BARE = {
    port: (site, "IO_TYPE=LVCMOS33")
    for port, site in {
        "clk": "4",
        "rst_n": "15",
        "valid": "16",
        "ready": "17",
        "in": "18",
        "out": "19",
    }.items()
}
DEVICES = (
    OpenTarget(
        name="tang-nano-20k",
        part=_PART,
        place=("--device", _PART, "--vopt", "family=GW2A-18C"),
        pack=("-d", "GW2A-18C"),
        # As nextpnr-himbaechel 0.11 prints them for an empty design.
        capacity=Resources(lut=20_736, ff=15_552, bram=46, dsp=96),
        board="tang-nano-20k",
        family=GOWIN,
        # nextpnr wants every pin placed.
        bare_pins="\n".join(_constraints(_BARE, {})) + "\n",
    ),
)

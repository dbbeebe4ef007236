"""Lattice ECP5: yosys' ``synth_ecp5``, nextpnr-ecp5, Project Trellis."""

from fpga_flow.devices.family import (
    Clocks,
    Family,
    OpenTarget,
    Pins,
    PllLimits,
    Resources,
    Tools,
)

CONFIG = "design.config"  # placed and routed, as text
_PINS, _BITSTREAM, _SVF = "pins.lpf", "chip.bit", "chip.svf"


def _constraints(pins: Pins, clocks: Clocks) -> list[str]:
    """Lines of a ``.lpf`` file."""
    lines = ["BLOCK RESETPATHS;", "BLOCK ASYNCPATHS;"]
    for port, (site, settings) in pins.items():
        lines += [f'LOCATE COMP "{port}" SITE "{site}";', f'IOBUF PORT "{port}" {settings};']
    return [*lines, *(f'FREQUENCY PORT "{port}" {mhz:g} MHZ;' for port, mhz in clocks.items())]


ECP5 = Family(
    name="ecp5",
    synth="synth_ecp5",
    core_flags="",
    # A carry cell is two LUTs. A 16x4 LUT RAM takes four LUTs and the two whose inputs its write
    # port uses.
    cells={
        "LUT4": {"lut": 1},
        "CCU2C": {"lut": 2},
        "TRELLIS_DPR16X4": {"lut": 6, "lutram": 1},
        "TRELLIS_FF": {"ff": 1},
        "DP16KD": {"bram": 1},
        "MULT18X18D": {"dsp": 1},
    },
    flip_flops=frozenset({"TRELLIS_FF"}),
    placed={
        "TRELLIS_COMB": ("lut", 1),
        "TRELLIS_FF": ("ff", 1),
        "DP16KD": ("bram", 1),
        "MULT18X18D": ("dsp", 1),
    },
    tools=Tools(
        place="nextpnr-ecp5",
        place_arguments=("--lpf", _PINS, "--lpf-allow-unconstrained", "--textcfg", CONFIG),
        pack="ecppack",
        pack_arguments=("--compress", "--input", CONFIG, "--bit", _BITSTREAM, "--svf", _SVF),
        pins=_PINS,
        bitstream=_BITSTREAM,
        more=(CONFIG, _SVF),
    ),
    # Lattice FPGA-DS-02012, "sysCLOCK PLL timing".
    pll=PllLimits(
        name="an ECP5",
        source="pll",
        takes_input_mhz=False,
        inputs=(8, 400),
        outputs=(5, 400),
        detector=(3.125, 400),
        oscillator=(400, 800),
        input_dividers=128,
        feedback_dividers=80,
        output_dividers=range(1, 129),
    ),
    constraints=_constraints,
    comment="#",
    netlist_models=True,
    # A multiplier has 18 bits on either side; narrower than two bits, logic is cheaper.
    multipliers=(
        "-map +/mul2dsp.v -map +/lattice/dsp_map_18x18.v "
        "-D DSP_A_MAXWIDTH=18 -D DSP_A_MINWIDTH=2 -D DSP_B_MAXWIDTH=18 -D DSP_B_MINWIDTH=2 "
        "-D DSP_NAME=$__MUL18X18"
    ),
    estimate="",
)

# As nextpnr-ecp5 0.11 prints them for an empty design. The 12F is the 25F's die.
_SMALL = Resources(lut=24_288, ff=24_288, bram=56, dsp=28)
_MIDDLE = Resources(lut=43_848, ff=43_848, bram=108, dsp=72)
_LARGE = Resources(lut=83_640, ff=83_640, bram=208, dsp=156)


def _device(name: str, part: str, die: str, speed: int, capacity: Resources) -> OpenTarget:
    """``speed`` is the grade, 6 (slowest) to 8; all come in the package of the ULX3S."""
    package = "CABGA381"
    place = (f"--{die}", "--package", package, "--speed", str(speed))
    return OpenTarget(name, f"{part}-{speed}{package}", place, (), capacity, "ulx3s-85f", ECP5)


DEVICES = (
    _device("ecp5-12f", "LFE5U-12F", "12k", 6, _SMALL),
    _device("ecp5-25f", "LFE5U-25F", "25k", 6, _SMALL),
    _device("ecp5-45f", "LFE5U-45F", "45k", 6, _MIDDLE),
    _device("ecp5-85f", "LFE5U-85F", "85k", 6, _LARGE),
    _device("ecp5-5g-45f", "LFE5UM5G-45F", "um5g-45k", 8, _MIDDLE),
    _device("ecp5-5g-85f", "LFE5UM5G-85F", "um5g-85k", 8, _LARGE),
)

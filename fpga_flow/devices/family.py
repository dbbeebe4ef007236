"""What a family of devices is to the open flow, and one device of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from divqat_brevitas.short_repr import ShortRepr


@dataclass(frozen=True)
class Resources:
    """Amounts of a device's cells, of a design or of one layer.

    ECP5's and Gowin's names of them are in ``Family.placed``.
    """

    lut: float = 0  # logic cells: one 4-input LUT each, carry chains included
    ff: float = 0  # flip-flops
    bram: float = 0  # block RAMs of 18,432 bits
    dsp: float = 0  # multipliers, of the family's smallest kind

    def __add__(self, other: "Resources") -> "Resources":
        """Cell by cell."""
        return Resources(
            self.lut + other.lut,
            self.ff + other.ff,
            self.bram + other.bram,
            self.dsp + other.dsp,
        )


@dataclass(frozen=True)
class PllLimits:
    """Ranges of a family's PLL whose feedback is its output, in MHz, both ends included."""

    name: str  # of the devices, for messages, such as ``an ECP5``
    source: str  # ``divqat_SOURCE.sv`` of ``fpga_flow/host`` is the module ``divqat_pll``
    takes_input_mhz: bool  # whether that module has to be given the input's clock
    inputs: tuple[float, float]
    outputs: tuple[float, float]
    detector: tuple[float, float]  # rate of the phase detector
    oscillator: tuple[float, float]
    input_dividers: int  # the largest one
    feedback_dividers: int  # the largest one
    output_dividers: Sequence[int]  # those there are


@dataclass(frozen=True)
class Tools:
    """The programs of a family behind synthesis; keys of ``fpga_flow.synthesis.tools.PACKAGES``."""

    place: str  # places and routes
    # Arguments beside those that name the device and those that every nextpnr takes
    place_arguments: tuple[str, ...]
    pack: str  # makes the bitstream
    pack_arguments: tuple[str, ...]  # beside those that name the device
    pins: str  # name of the pin file
    bitstream: str  # name of the bitstream
    more: tuple[str, ...]  # names of what else they make and is kept


Pins = Mapping[str, tuple[str, str]]  # port -> (site, settings)
Clocks = Mapping[str, float]  # port -> MHz


@dataclass(frozen=True)
class Family(ShortRepr):
    """A family of devices of the open flow: everything that depends on the manufacturer.

    Block RAMs are not among it: those of all families here have the shapes of
    ``fpga_flow.folding.cost.block_rams``.
    """

    name: str
    synth: str  # yosys' command
    core_flags: str  # for the network without pins
    # yosys' cell -> what it takes of each kind of ``fpga_flow.synthesis.cells.Cells``
    cells: Mapping[str, Mapping[str, int]]
    flip_flops: frozenset[str]  # those of ``cells`` whose pin ``CLK`` is a clock
    # nextpnr's cell -> (kind of ``Resources``, how many of that kind it is)
    placed: Mapping[str, tuple[str, int]]
    tools: Tools
    pll: PllLimits
    constraints: Callable[[Pins, Clocks], list[str]]  # the pin file
    comment: str  # what begins a comment in it
    netlist_models: bool  # whether the netlist's cells can be simulated
    multipliers: str  # arguments of yosys' techmap that make products multipliers; "": not known
    estimate: str  # what our cost model's weights were fitted to


@dataclass(frozen=True)
class OpenTarget:
    """A device of the open flow: yosys, nextpnr and a packer."""

    name: str  # what users call it, such as ``ecp5-85f``
    part: str  # the whole part number, such as ``LFE5U-85F-6CABGA381``
    place: tuple[str, ...]  # arguments of nextpnr that name the device
    pack: tuple[str, ...]  # arguments of the packer that name it
    capacity: Resources  # what the device holds, as nextpnr counts it
    board: str  # the board a chip is made for where no other is named
    family: Family
    bare_pins: str = ""  # the pin file of a network without a chip, where nextpnr wants one

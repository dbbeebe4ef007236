"""Boards a chip can be put on: their clock and pins, what their PLL makes, and serial lines."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.devices.ecp5 import ECP5
from fpga_flow.devices.family import Family, Pins, PllLimits
from fpga_flow.devices.gowin import GOWIN

INTERFACES = ("uart", "ft245")


@dataclass(frozen=True)
class Board(ShortRepr):
    """A board's clock and pins. None of these pinouts was verified on hardware."""

    name: str  # as users give it
    family: Family  # of the FPGA on it
    clock_mhz: float  # of the oscillator behind ``clk_in``
    pins: Mapping[str, Pins]  # ports of the chip's top, by interface
    leds: int  # how many, 6 or more
    leds_low: bool  # whether a 0 lights them
    notes: tuple[str, ...]  # for the constraint file: where the pins were taken from, and wiring

    def pins_for(self, interface: str) -> Pins:
        """The pins of an interface; an InputError names those that the board has."""
        if interface not in self.pins:
            raise InputError(
                f"the board {self.name} has no pins for the interface {interface}: choose "
                f"{' or '.join(self.pins)} (compile.interface)."
            )
        return self.pins[interface]


_IN = "PULLMODE=UP IO_TYPE=LVCMOS33"
_OUT = "PULLMODE=UP IO_TYPE=LVCMOS33 DRIVE=4"
_FAST = "PULLMODE=UP IO_TYPE=LVCMOS33 DRIVE=8 SLEWRATE=FAST"
_LED = "PULLMODE=NONE IO_TYPE=LVCMOS33 DRIVE=4"


def _ulx3s() -> Board:
    common = {"clk_in": ("G2", "PULLMODE=NONE IO_TYPE=LVCMOS33"), "wifi_gpio0": ("L2", _OUT)}
    leds = ("B2", "C2", "C1", "D2", "D1", "E2", "E1", "H3")
    common |= {f"led[{i}]": (site, _LED) for i, site in enumerate(leds)}
    uart = {"uart_tx": ("L4", _OUT), "uart_rx": ("M1", _IN)}
    # The header J1; its clock goes to a pin that reaches the global clock network.
    data = ("A9", "B10", "B9", "C10", "A7", "A8", "C8", "B8")
    ft245 = {f"ft_data[{i}]": (site, _FAST) for i, site in enumerate(data)}
    ft245 |= {
        "ft_clk": ("B11", _IN),
        "ft_rxf_n": ("C6", _IN),
        "ft_txe_n": ("C7", _IN),
        "ft_rd_n": ("A6", _FAST),
        "ft_wr_n": ("B6", _FAST),
        "ft_oe_n": ("A4", _FAST),
        "ft_siwu_n": ("A5", _OUT),
    }
    return Board(
        name="ulx3s",
        family=ECP5,
        clock_mhz=25.0,
        pins=MappingProxyType({"uart": common | uart, "ft245": common | ft245}),
        leds=len(leds),
        leds_low=False,
        notes=(
            "ULX3S v2.x and v3.0.x, from the board's public constraint file (emard/ulx3s).",
            "uart: the board's own USB port US1 (FT231X, up to 3 Mbaud).",
            "ft245: an FT232H or FT2232H module on header J1: clock GP0; data 0 to 7 on GP2, GN2,",
            "GP3, GN3, GP4, GN4, GP5, GN5; RXF# GP6, TXE# GN6, RD# GP7, WR# GN7, OE# GP8,",
            "SIWU# GN8.",
        ),
    )


def _tang_nano_20k() -> Board:
    plain = "IO_TYPE=LVCMOS33 PULL_MODE=NONE"
    leds = {f"led[{i}]": (str(15 + i), plain) for i in range(6)}
    uart = {
        "clk_in": ("4", plain),
        "uart_tx": ("69", plain),
        "uart_rx": ("70", "IO_TYPE=LVCMOS33 PULL_MODE=UP"),
    }
    return Board(
        name="tang-nano-20k",
        family=GOWIN,
        clock_mhz=27.0,
        pins=MappingProxyType({"uart": uart | leds}),
        leds=len(leds),
        leds_low=True,
        notes=(
            "Sipeed Tang Nano 20K: the pins are the same in litex-hub/litex-boards",
            "(sipeed_tang_nano_20k.py) and YosysHQ/apicula (examples/tangnano20k.cst).",
            "uart: the board's own USB port, through its BL616.",
        ),
    )


# The ULX3S is one circuit board with four sizes of FPGA in the same package.
BOARDS: Mapping[str, Board] = MappingProxyType(
    dict.fromkeys(("ulx3s", "ulx3s-12f", "ulx3s-25f", "ulx3s-45f", "ulx3s-85f"), _ulx3s())
    | {"tang-nano-20k": _tang_nano_20k()}
)


def find_board(name: str) -> Board:
    """The board of that name; an InputError names the nearest known one."""
    if name not in BOARDS:
        raise unknown_name("board", name, BOARDS)
    return BOARDS[name]


def constraints(board: Board, interface: str) -> str:
    """The pin file (ECP5: ``.lpf``, Gowin: ``.cst``) of a chip on a board."""
    family = board.family
    notes = ("Written by divqat. Pinout not verified on hardware.", *board.notes)
    lines = [f"{family.comment} {note}" for note in notes]
    clocks = {"clk_in": board.clock_mhz} | ({"ft_clk": 60.0} if interface == "ft245" else {})
    lines += family.constraints(board.pins_for(interface), clocks)
    return "\n".join(lines) + "\n"


# What FTDI's USB bridges reach: 3 Mbaud over whole numbers and a few fractions.
BAUDS = (3_000_000, 2_000_000, 1_500_000, 1_000_000, 750_000, 500_000, 250_000, 115_200)
# A byte's stop bit is sampled 9.5 bits behind its start: 2.5 % wrong, it is off by a quarter of
# a bit, which leaves a quarter for the sampling grain and the other side's clock.
_BAUD_TOLERANCE = 0.025
LEAST_DIVIDER = 4


@dataclass(frozen=True)
class Pll:
    """Settings of a PLL (``EHXPLLL``, ``rPLL``) with feedback from its output."""

    input_divider: int  # of the board's clock, before the phase detector
    feedback_divider: int  # of the output: the output is this many times the phase detector's rate
    output_divider: int  # of the oscillator
    mhz: float  # of the output
    vco_mhz: float  # of the oscillator


def pll(limits: PllLimits, mhz_in: float, wanted: float) -> Pll:
    """The settings that give the highest clock not above ``wanted``.

    Args:
        limits: of the family's PLL.
        mhz_in: the board's clock, in MHz.
        wanted: the output, in MHz.

    Raises:
        InputError: a clock out of the PLL's range.

    Example:
        >>> pll(ECP5.pll, 25.0, 70.0).mhz
        70.0
    """
    low, high = limits.inputs
    if not low <= mhz_in <= high:
        raise InputError(f"{limits.name}'s PLL takes {low:g} to {high:g} MHz, not {mhz_in:g}.")
    low, high = limits.outputs
    if not low <= wanted <= high:
        raise InputError(
            f"{limits.name}'s PLL gives clocks of {low:g} to {high:g} MHz here, not {wanted:g}."
        )
    slow, fast = limits.oscillator
    middle = (slow + fast) / 2
    best: tuple[tuple[float, float, float], Pll] | None = None
    for input_divider in range(1, limits.input_dividers + 1):
        pfd = mhz_in / input_divider
        if not limits.detector[0] <= pfd <= limits.detector[1]:
            continue
        # The largest feedback divider that does not go above; 1e-9: 25 / 3 * 9 is 75.
        feedback = min(int(wanted / pfd + 1e-9), limits.feedback_dividers)
        mhz = pfd * feedback
        fitting = [n for n in limits.output_dividers if slow <= mhz * n <= fast]
        if not fitting:
            continue
        # Nearest to the middle of the oscillator's range; of two, the even one.
        output = min(fitting, key=lambda n: (abs(n - middle / mhz), n % 2))
        vco = mhz * output
        # Nearest first; then a fast phase detector, which jitters less; then the middle of the
        # oscillator's range.
        rank = (round(wanted - mhz, 9), -pfd, abs(vco - middle))
        if best is None or rank < best[0]:
            best = rank, Pll(input_divider, feedback, output, mhz, vco)
    if best is None:
        raise InputError(
            f"{limits.name}'s PLL makes no clock near {wanted:g} MHz from {mhz_in:g} MHz."
        )
    return best[1]


def uart_divider(mhz: float, baud: int) -> int:
    """Clock cycles (of ``mhz`` MHz) a bit of a serial line with ``baud`` bits a second.

    Raises:
        InputError: no whole number of cycles comes within 2.5 %.

    Example:
        >>> uart_divider(75.0, 3_000_000)
        25
    """
    cycles = mhz * 1e6 / baud
    divider = max(round(cycles), LEAST_DIVIDER)
    if abs(divider / cycles - 1) > _BAUD_TOLERANCE:
        near = fastest_baud(mhz)
        raise InputError(
            f"{baud} baud are {cycles:.2f} cycles of {mhz:g} MHz a bit: too far from a whole "
            f"number. Use another clock, or {near} baud."
        )
    return divider


def fastest_baud(mhz: float) -> int:
    """The fastest usual rate of a serial line that a clock can serve.

    Example:
        >>> fastest_baud(50.0), fastest_baud(25.0)
        (3000000, 1500000)
    """
    for baud in BAUDS:
        cycles = mhz * 1e6 / baud
        if cycles >= 8 and abs(round(cycles) / cycles - 1) <= _BAUD_TOLERANCE:
            return baud
    raise InputError(f"a clock of {mhz:g} MHz is too slow for a serial line.")

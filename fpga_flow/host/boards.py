"""Boards a chip can be put on: their clock and pins, what their PLL makes, and serial lines."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.short_repr import ShortRepr

INTERFACES = ("uart", "ft245")


@dataclass(frozen=True)
class Board(ShortRepr):
    """A board's clock and pins. None of these pinouts was verified on hardware."""

    name: str  # as users give it
    clock_mhz: float  # of the oscillator behind ``clk_in``
    # Port of the chip's top -> (site, settings of ``IOBUF``), by interface
    pins: Mapping[str, Mapping[str, tuple[str, str]]]
    notes: tuple[str, ...]  # for the constraint file: where the pins were taken from, and wiring


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
        clock_mhz=25.0,
        pins=MappingProxyType({"uart": common | uart, "ft245": common | ft245}),
        notes=(
            "ULX3S v2.x and v3.0.x, from the board's public constraint file (emard/ulx3s).",
            "uart: the board's own USB port US1 (FT231X, up to 3 Mbaud).",
            "ft245: an FT232H or FT2232H module on header J1: clock GP0; data 0 to 7 on GP2, GN2,",
            "GP3, GN3, GP4, GN4, GP5, GN5; RXF# GP6, TXE# GN6, RD# GP7, WR# GN7, OE# GP8,",
            "SIWU# GN8.",
        ),
    )


_ULX3S = _ulx3s()
# One circuit board, four sizes of FPGA in the same package.
BOARDS: Mapping[str, Board] = MappingProxyType(
    dict.fromkeys(("ulx3s", "ulx3s-12f", "ulx3s-25f", "ulx3s-45f", "ulx3s-85f"), _ULX3S)
)


def find_board(name: str) -> Board:
    """The board of that name; an InputError names the nearest known one."""
    if name not in BOARDS:
        raise unknown_name("board", name, BOARDS)
    return BOARDS[name]


def constraints(board: Board, interface: str) -> str:
    """The constraint file (``.lpf``) of a chip on a board."""
    lines = ["# Written by divqat. Pinout not verified on hardware."]
    lines += [f"# {note}" for note in board.notes]
    lines += ["BLOCK RESETPATHS;", "BLOCK ASYNCPATHS;"]
    for port, (site, settings) in board.pins[interface].items():
        lines += [f'LOCATE COMP "{port}" SITE "{site}";', f'IOBUF PORT "{port}" {settings};']
    lines.append(f'FREQUENCY PORT "clk_in" {board.clock_mhz:g} MHZ;')
    if interface == "ft245":
        lines.append('FREQUENCY PORT "ft_clk" 60 MHZ;')
    return "\n".join(lines) + "\n"


# MHz; Lattice FPGA-DS-02012, "sysCLOCK PLL timing".
_PFD = (3.125, 400.0)
_VCO = (400.0, 800.0)
_DIVIDERS = 128
_FEEDBACKS = 80
# What FTDI's USB bridges reach: 3 Mbaud over whole numbers and a few fractions.
BAUDS = (3_000_000, 2_000_000, 1_500_000, 1_000_000, 750_000, 500_000, 250_000, 115_200)
# A byte's stop bit is sampled 9.5 bits behind its start: 2.5 % wrong, it is off by a quarter of
# a bit, which leaves a quarter for the sampling grain and the other side's clock.
_BAUD_TOLERANCE = 0.025
LEAST_DIVIDER = 4


@dataclass(frozen=True)
class Pll:
    """Settings of an ``EHXPLLL`` with feedback from its output."""

    input_divider: int  # of the board's clock, before the phase detector
    feedback_divider: int  # of the output: the output is this many times the phase detector's rate
    output_divider: int  # of the oscillator
    mhz: float  # of the output
    vco_mhz: float  # of the oscillator


def pll(mhz_in: float, wanted: float) -> Pll:
    """The settings that give the highest clock not above ``wanted``.

    ``mhz_in``, the board's clock, is 8 to 400 MHz, ``wanted`` 5 to 400 MHz; an InputError names
    others.

    Example:
        >>> pll(25.0, 70.0).mhz
        70.0
    """
    if not 8 <= mhz_in <= 400:
        raise InputError(f"an ECP5's PLL takes 8 to 400 MHz, not {mhz_in:g}.")
    if not 5 <= wanted <= 400:
        raise InputError(f"an ECP5's PLL gives clocks of 5 to 400 MHz here, not {wanted:g}.")
    best: tuple[tuple[float, float, float], Pll] | None = None
    for input_divider in range(1, _DIVIDERS + 1):
        pfd = mhz_in / input_divider
        if not _PFD[0] <= pfd <= _PFD[1]:
            continue
        # The largest feedback divider that does not go above; 1e-9: 25 / 3 * 9 is 75.
        feedback = min(int(wanted / pfd + 1e-9), _FEEDBACKS)
        if feedback == 0:
            continue
        mhz = pfd * feedback
        low, high = -int(-_VCO[0] // mhz), int(_VCO[1] / mhz)
        output = min(max(round(sum(_VCO) / 2 / mhz), low, 1), high, _DIVIDERS)
        vco = mhz * output
        if not _VCO[0] <= vco <= _VCO[1]:
            continue
        # Nearest first; then a fast phase detector, which jitters less; then the middle of the
        # oscillator's range.
        rank = (round(wanted - mhz, 9), -pfd, abs(vco - sum(_VCO) / 2))
        if best is None or rank < best[0]:
            best = rank, Pll(input_divider, feedback, output, mhz, vco)
    if best is None:
        raise InputError(f"an ECP5's PLL makes no clock near {wanted:g} MHz from {mhz_in:g} MHz.")
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

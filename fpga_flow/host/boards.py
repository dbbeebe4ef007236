"""Boards a chip can be put on: their clock and pins."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from divqat_brevitas.errors import unknown_name
from divqat_brevitas.short_repr import ShortRepr

INTERFACES = ("uart", "ft245")


@dataclass(frozen=True)
class Board(ShortRepr):
    """A board's clock and pins. None of these pinouts was verified on hardware.

    Attributes:
        name: as users give it.
        clock_mhz: of the oscillator behind ``clk_in``.
        pins: port of the chip's top -> (site, settings of ``IOBUF``), by interface.
        notes: for the constraint file: where the pins were taken from, and wiring.
    """

    name: str
    clock_mhz: float
    pins: Mapping[str, Mapping[str, tuple[str, str]]]
    notes: tuple[str, ...]


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
    """The board of that name.

    Raises:
        InputError: none is called so.

    Example:
        >>> find_board("ulx3s-85f").clock_mhz
        25.0
    """
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

"""Writes the chip: a design with a host interface around it, its clock and its pins."""

import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.files import write_text
from fpga_flow.host.boards import (
    INTERFACES,
    Board,
    Pll,
    constraints,
    fastest_baud,
    find_board,
    pll,
    uart_divider,
)
from fpga_flow.host.protocol import OVERHEAD, VERSION, Identity
from fpga_flow.host.tripwire import ChipTripwire
from fpga_flow.records import Recorded
from fpga_flow.rtl.design import Design
from fpga_flow.synthesis.synth import ChipSources

TOP = "divqat_chip"
_SHELL = ("crc32", "fifo", "receive", "send", "link", "reset")
_LINKS = {"uart": ("uart",), "ft245": ("async_fifo", "ft245")}
# Bytes that FTDI's chips hold for a host that does not read: FT231X 512, FT232H 1024.
_BRIDGE = {"uart": 512, "ft245": 1024}
_SHALLOW = 16  # as deep as distributed RAM is
_BLOCK_RAM = 2048  # bytes of one


@dataclass(frozen=True)
class Chip(Recorded):
    """A design with everything a board needs around it."""

    RECORD = "chip.json"
    ABSENT = "holds no chip. Run `divqat compile` with a board's target."

    folder: Path  # holds ``chip.json``, the sources and the constraint file
    top: str  # name of the top module
    # SystemVerilog files in the order to be read, relative to ``folder``; they go behind the
    # design's own
    sources: tuple[str, ...]
    constraints: str  # the pin file, relative to ``folder``
    interface: str  # "uart" or "ft245"
    board: str  # its name
    clock_mhz: float  # of the core, as the PLL makes it
    baud: int | None  # of the serial line, None for ft245
    divider: int | None  # clock cycles a bit of the serial line, None for ft245
    window: int  # images a host may have sent and not got answers to
    design_digest: str  # the design it was written for
    tripwire: dict[str, int] | None = None  # parameters of its module, None without a tripwire

    def all_sources(self, design: Design) -> tuple[str, ...]:
        """Files of design and chip in the order to be read, relative to the design's folder."""
        here = os.path.relpath(self.folder, design.folder)
        return (*design.sources, *(f"{here}/{name}" for name in self.sources))

    def check_design(self, design: Design) -> None:
        """Refuse a design that the chip was not written for (InputError)."""
        if self.design_digest != design.digest:
            raise InputError(
                f"{self.folder} was written for another design than {design.folder}. "
                "Run `divqat compile` again."
            )

    def for_synthesis(self) -> ChipSources:
        """What ``build_bitstream`` takes."""
        return ChipSources(
            name=f"{self.interface}, {self.board}",
            folder=self.folder,
            top=self.top,
            sources=self.sources,
            constraints=self.constraints,
            clock_mhz=self.clock_mhz,
        )


def write_chip(
    design: Design,
    folder: Path,
    *,
    interface: str = "uart",
    board: str = "ulx3s-85f",
    clock_mhz: float = 50.0,
    baud: int | None = None,
    pins: Path | None = None,
    tripwire: ChipTripwire | None = None,
) -> Chip:
    """Write a chip's top, its shell, its constraint file and ``chip.json``.

    Args:
        design: what goes inside.
        folder: written to; made if it is not there.
        interface: "uart" (any USB serial port) or "ft245" (FTDI's synchronous FIFO).
        board: one of ``fpga_flow.host.boards.BOARDS``.
        clock_mhz: of the core; the chip gets the nearest the PLL makes that is not above.
        baud: of the serial line; None: the fastest the clock serves.
        pins: an own pin file in place of the board's.
        tripwire: counts rejected images behind the core. Its alarm is on the second highest LED
            and in the chip's status.

    Raises:
        InputError: unknown interface or board, an interface the board has no pins for, a clock
            the PLL or the serial line cannot use, an image too large for the protocol, or a
            tripwire that does not fit the design, or is missing.
    """
    watch = None if tripwire is None else tripwire.parameters(tripwire.check(design.unit))
    if design.unit is not None and design.unit.flagged and watch is None:
        raise InputError(
            f"{design.folder} gives the rejected bit of each image, which only a tripwire takes "
            "off: write its chip with a tripwire."
        )
    if interface not in INTERFACES:
        raise unknown_name("interface", interface, INTERFACES)
    place = find_board(board)
    pin_text = constraints(place, interface)
    clock = pll(place.family.pll, place.clock_mhz, clock_mhz)
    divider = None
    if interface == "uart":
        baud = baud or fastest_baud(clock.mhz)
        divider = uart_divider(clock.mhz, baud)
    else:
        baud = None
    depth, window = _buffers(design, interface, divider)
    identity = _identity(design, interface, clock.mhz, window)
    folder = Path(folder).absolute()
    parts = (*_SHELL, place.family.pll.source, *_LINKS[interface], *(["tripwire"] if watch else []))
    names = [f"divqat_{name}.sv" for name in parts]
    for name in names:
        text = files("fpga_flow.host").joinpath("sv", name).read_text(encoding="utf-8")
        write_text(folder / name, text)
    top = _top(design, identity, place, interface, clock, divider, depth, watch)
    write_text(folder / f"{TOP}.sv", top)
    pin_file = Path(TOP).with_suffix(Path(place.family.tools.pins).suffix).name
    write_text(folder / pin_file, pin_text if pins is None else _own(pins))
    chip = Chip(
        folder=folder,
        top=TOP,
        sources=(*names, f"{TOP}.sv"),
        constraints=pin_file,
        interface=interface,
        board=board,
        clock_mhz=clock.mhz,
        baud=baud,
        divider=divider,
        window=window,
        design_digest=design.digest,
        tripwire=watch,
    )
    chip.save()
    return chip


def _own(pins: Path) -> str:
    try:
        return Path(pins).read_text(encoding="utf-8")
    except OSError as e:
        raise InputError(f"cannot read the constraint file {pins}: {e.strerror or e}.") from e


def _identity(design: Design, interface: str, mhz: float, window: int) -> Identity:
    """What the chip will say of itself."""
    identity = Identity(
        version=VERSION,
        interface=interface,
        digest=bytes.fromhex(design.digest)[:8],
        in_beats=design.input.beats,
        in_bytes=design.input.bytes,
        out_beats=design.output.beats,
        out_bytes=design.output.bytes,
        classes=design.classes,
        window=window,
        clock_mhz=mhz,
    )
    largest = max(identity.in_beats, identity.in_bytes, identity.out_beats, identity.classes)
    if largest >= 1 << 16:
        raise InputError(f"the host protocol counts to 65,535; this design has {largest} beats.")
    return identity


def _buffers(design: Design, interface: str, divider: int | None) -> tuple[int, int]:
    """Bytes that may wait for the core, and images that may be unanswered: (depth, window).

    Unanswered images are kept within what the USB bridge holds of answers, so that a slow host
    loses none; a sequence number of 8 bits is unambiguous up to 128.

    A serial line cannot be held up: what the core does not take has to find room. A core that is
    faster than the line stops taking beats for no longer than its slowest layer works on an
    image. Behind a slower one, or when answers take the line longer than images, a whole window
    piles up.
    """
    image = design.input.beats * design.input.bytes + OVERHEAD
    answer = design.output.beats * design.output.bytes + OVERHEAD
    window = max(1, min(64, _BRIDGE[interface] // answer))
    if divider is None:
        return _SHALLOW, window
    slowest = max((node.cycles or node.finn_cycles for node in design.nodes), default=1)
    waiting = slowest // (10 * divider) + 8
    if answer > image or waiting > image:
        window = max(1, min(window, _BLOCK_RAM // image))
        waiting = window * image
    depth = _SHALLOW
    while depth < waiting:
        depth *= 2
    return depth, window


def _top(
    design: Design,
    identity: Identity,
    board: Board,
    interface: str,
    clock: Pll,
    divider: int | None,
    depth: int,
    tripwire: dict[str, int] | None,
) -> str:
    """The chip's top module."""
    environment = Environment(
        loader=PackageLoader("fpga_flow.host", "sv"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("divqat_chip.sv.j2").render(
        top=TOP,
        design=design,
        identity=identity,
        board=board,
        pins=board.pins_for(interface),
        clock=clock,
        divider=divider,
        depth=depth,
        tripwire=tripwire,
        constant=f"{int.from_bytes(identity.pack(), 'little'):048x}",
    )

"""Writes the chip: a design with a host interface around it, its clock and its pins."""

import os
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.files import read_json, write_json, write_text
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.host.boards import INTERFACES, constraints, find_board
from fpga_flow.host.pll import Pll, fastest_baud, pll, uart_divider
from fpga_flow.host.protocol import OVERHEAD, VERSION, Identity
from fpga_flow.rtl.design import Design
from fpga_flow.synthesis.top import ChipSources

RECORD = "chip.json"
SCHEMA = 1
TOP = "divqat_chip"
_SHELL = ("crc32", "fifo", "receive", "send", "link", "reset", "pll")
_LINKS = {"uart": ("uart",), "ft245": ("async_fifo", "ft245")}
# Bytes that FTDI's chips hold for a host that does not read: FT231X 512, FT232H 1024.
_BRIDGE = {"uart": 512, "ft245": 1024}
_SHALLOW = 16  # as deep as distributed RAM is
_BLOCK_RAM = 2048  # bytes of one


@dataclass(frozen=True)
class Chip(ShortRepr):
    """A design with everything a board needs around it.

    Attributes:
        folder: holds ``chip.json``, the sources and the constraint file.
        top: name of the top module.
        sources: SystemVerilog files in the order to be read, relative to ``folder``; they go
            behind the design's own.
        constraints: the ``.lpf`` file, relative to ``folder``.
        interface: "uart" or "ft245".
        board: its name.
        clock_mhz: of the core, as the PLL makes it.
        board_clock_mhz: of the board's oscillator.
        baud: of the serial line, None for ft245.
        divider: clock cycles a bit of the serial line, None for ft245.
        window: images a host may have sent and not got answers to.
        design_digest: the design it was written for.
    """

    folder: Path
    top: str
    sources: tuple[str, ...]
    constraints: str
    interface: str
    board: str
    clock_mhz: float
    board_clock_mhz: float
    baud: int | None
    divider: int | None
    window: int
    design_digest: str

    def all_sources(self, design: Design) -> tuple[str, ...]:
        """Files of design and chip in the order to be read, relative to the design's folder."""
        here = os.path.relpath(self.folder, design.folder)
        return (*design.sources, *(f"{here}/{name}" for name in self.sources))

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

    def save(self) -> None:
        """Write ``chip.json``."""
        record = asdict(self) | {"schema": SCHEMA}
        del record["folder"]
        write_json(self.folder / RECORD, record)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a chip.

        Raises:
            InputError: none is there, or it is of another version.
        """
        folder = Path(folder).absolute()
        if not (folder / RECORD).is_file():
            raise InputError(f"{folder} holds no chip. Run `divqat compile` with a board's target.")
        record = read_json(folder / RECORD)
        try:
            if record.pop("schema") != SCHEMA:
                raise KeyError("schema")
            record["sources"] = tuple(record["sources"])
            return cls(folder=folder, **record)
        except (KeyError, TypeError) as e:
            raise InputError(
                f"{folder / RECORD} is not of this version ({e}). Run `divqat compile` again."
            ) from e


def write_chip(
    design: Design,
    folder: Path,
    *,
    interface: str = "uart",
    board: str = "ulx3s-85f",
    clock_mhz: float = 50.0,
    baud: int | None = None,
    pins: Path | None = None,
) -> Chip:
    """Write a chip's top, its shell and its constraint file.

    Args:
        design: what goes inside.
        folder: written to; made if it is not there.
        interface: "uart" (any USB serial port) or "ft245" (FTDI's synchronous FIFO).
        board: one of ``fpga_flow.host.boards.BOARDS``.
        clock_mhz: of the core; the chip gets the nearest the PLL makes that is not above.
        baud: of the serial line; None: the fastest the clock serves.
        pins: an own ``.lpf`` in place of the board's.

    Returns:
        The chip, also saved as ``chip.json``.

    Raises:
        InputError: unknown interface or board, a clock the PLL or the serial line cannot use, or
            an image too large for the protocol.

    Example:
        >>> chip = write_chip(design, Path("chip"), clock_mhz=75)  # doctest: +SKIP
        >>> chip.clock_mhz, chip.baud  # doctest: +SKIP
        (75.0, 3000000)
    """
    if interface not in INTERFACES:
        raise unknown_name("interface", interface, INTERFACES)
    place = find_board(board)
    clock = pll(place.clock_mhz, clock_mhz)
    divider = None
    if interface == "uart":
        baud = baud or fastest_baud(clock.mhz)
        divider = uart_divider(clock.mhz, baud)
    else:
        baud = None
    depth, window = _buffers(design, interface, divider)
    identity = _identity(design, interface, clock.mhz, window)
    folder = Path(folder).absolute()
    names = [f"divqat_{name}.sv" for name in (*_SHELL, *_LINKS[interface])]
    for name in names:
        text = files("fpga_flow.host").joinpath("sv", name).read_text(encoding="utf-8")
        write_text(folder / name, text)
    write_text(folder / f"{TOP}.sv", _top(design, identity, clock, divider, depth))
    text = constraints(place, interface) if pins is None else _own(pins)
    write_text(folder / f"{TOP}.lpf", text)
    chip = Chip(
        folder=folder,
        top=TOP,
        sources=(*names, f"{TOP}.sv"),
        constraints=f"{TOP}.lpf",
        interface=interface,
        board=board,
        clock_mhz=clock.mhz,
        board_clock_mhz=place.clock_mhz,
        baud=baud,
        divider=divider,
        window=window,
        design_digest=design.digest,
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


_UART_PORTS = """    input  logic uart_rx,
    output logic uart_tx,
"""
_UART = """  divqat_uart #(
      .DIVIDER(`DIVQAT_DIVIDER)
  ) uart (
      .clk,
      .rst_n,
      .rx(uart_rx),
      .tx(uart_tx),
      .in_data(rx_data),
      .in_valid(rx_valid),
      .in_broken(rx_broken),
      .out_data(tx_data),
      .out_valid(tx_valid),
      .out_ready(tx_ready)
  );
"""
_FT245_PORTS = """    input  logic ft_clk,
    input  logic ft_rxf_n,
    input  logic ft_txe_n,
    output logic ft_rd_n,
    output logic ft_wr_n,
    output logic ft_oe_n,
    output logic ft_siwu_n,
`ifdef DIVQAT_SIM  // the pads' two sides
    input  logic [7:0] ft_in,
    output logic [7:0] ft_out,
    output logic ft_drive,
`else
    inout  wire [7:0] ft_data,
`endif
"""
_FT245 = """  logic ft_rst_n;
`ifndef DIVQAT_SIM
  logic ft_drive;
  logic [7:0] ft_in, ft_out;
  assign ft_in = ft_data;
  assign ft_data = ft_drive ? ft_out : 8'hzz;
`endif
  assign rx_broken = 1'b0;
  assign ft_siwu_n = 1'b1;
  divqat_reset ft_reset (
      .clk(ft_clk),
      .ready(locked),
      .rst_n(ft_rst_n)
  );
  divqat_ft245 ft245 (
      .ft_clk,
      .ft_rst_n,
      .ft_rxf_n,
      .ft_txe_n,
      .ft_rd_n,
      .ft_wr_n,
      .ft_oe_n,
      .ft_in,
      .ft_out,
      .ft_drive,
      .clk,
      .rst_n,
      .in_data(rx_data),
      .in_valid(rx_valid),
      .in_ready(rx_ready),
      .out_data(tx_data),
      .out_valid(tx_valid),
      .out_ready(tx_ready)
  );
"""


def _top(design: Design, identity: Identity, clock: Pll, divider: int | None, depth: int) -> str:
    """The chip's top module."""
    uart = divider is not None
    fields: dict[str, Any] = {
        "top": TOP,
        "digest": design.digest[:16],
        "divider": divider or 0,
        "ports": _UART_PORTS if uart else _FT245_PORTS,
        "link": _UART if uart else _FT245,
        "clock": clock,
        "identity": identity,
        "in_top": 8 * identity.in_bytes - 1,
        "out_top": 8 * identity.out_bytes - 1,
        "constant": int.from_bytes(identity.pack(), "little"),
        "depth": depth,
        "crc_bits": 1 if uart else 8,
        "tags": 4 if uart else 16,
        "lossy": int(uart),
        "core": design.top,
    }
    return _TOP.format(**fields)


_TOP = """// Written by divqat for the design {digest}: host interface, clock and core.
`ifndef DIVQAT_DIVIDER
`define DIVQAT_DIVIDER {divider}  // a simulation may want a faster line
`endif
module {top} (
    input  logic clk_in,
{ports}    output logic wifi_gpio0,  // ULX3S: high, or its ESP32 may reset the board
    output logic [7:0] led
);
  logic clk, locked, rst_n, core_rst_n;
  logic [7:0] rx_data, tx_data;
  logic rx_valid, rx_ready, rx_broken, tx_valid, tx_ready;
  logic [{in_top}:0] s_data;
  logic [{out_top}:0] m_data;
  logic s_valid, s_ready, m_valid, m_ready;
  logic [3:0] lights;
  assign wifi_gpio0 = 1'b1;
  assign led = {{lights[3], 3'b000, rx_valid, lights[2:0]}};

  divqat_pll #(
      .INPUT_DIVIDER({clock.input_divider}),
      .FEEDBACK_DIVIDER({clock.feedback_divider}),
      .OUTPUT_DIVIDER({clock.output_divider})
  ) pll (
      .clk_in,
      .clk,
      .locked
  );
  divqat_reset reset (
      .clk,
      .ready(locked),
      .rst_n
  );
{link}  divqat_link #(
      .IN_BYTES({identity.in_bytes}),
      .IN_BEATS({identity.in_beats}),
      .OUT_BYTES({identity.out_bytes}),
      .OUT_BEATS({identity.out_beats}),
      .RX_DEPTH({depth}),
      .CRC_BITS({crc_bits}),
      .TAGS({tags}),
      .LOSSY({lossy}),
      .IDENTITY(192'h{constant:048x})
  ) link (
      .clk,
      .rst_n,
      .rx_data,
      .rx_valid,
      .rx_ready,
      .rx_broken,
      .tx_data,
      .tx_valid,
      .tx_ready,
      .core_rst_n,
      .s_axis_tdata(s_data),
      .s_axis_tvalid(s_valid),
      .s_axis_tready(s_ready),
      .m_axis_tdata(m_data),
      .m_axis_tvalid(m_valid),
      .m_axis_tready(m_ready),
      .lights
  );
  {core} core (
      .ap_clk(clk),
      .ap_rst_n(core_rst_n),
      .s_axis_tdata(s_data),
      .s_axis_tvalid(s_valid),
      .s_axis_tready(s_ready),
      .m_axis_tdata(m_data),
      .m_axis_tvalid(m_valid),
      .m_axis_tready(m_ready)
  );
endmodule
"""

"""A whole chip in Verilator: its pins driven and read as a board's USB bridge does."""

import struct
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

from divqat_brevitas.errors import InputError
from fpga_flow.engines.simulation import SimulationError, watchdog
from fpga_flow.engines.verilator import CFLAGS, verilate
from fpga_flow.host.boards import LEAST_DIVIDER
from fpga_flow.host.chip import Chip
from fpga_flow.host.driver import ChipDriver, ChipEngine
from fpga_flow.rtl.design import Design

_DRIVER = Path(__file__).parent / "cpp" / "chip.cpp"
# Cycles that the clock crossings, the reset and the framing take, generously.
_SLACK = 10_000


def simulate_chip(design: Design, chip: Chip, *, divider: int | None = None) -> ChipEngine:
    """An engine that runs images on the simulated chip.

    Args:
        design: what the chip holds.
        chip: as ``write_chip`` gives.
        divider: clock cycles a bit of the serial line in place of the chip's own, at least 4: a
            simulation of 25 cycles a bit spends most of its time on waiting for the line.

    Returns:
        The engine; ``engine.driver.status()`` has the chip's counters, ``engine.driver.close()``
        ends the simulation.

    Raises:
        InputError: the chip was written for another design.
        ToolMissingError: Verilator or g++ is not installed.
        VerilationError: the chip is refused.
    """
    chip.check_design(design)
    transport = SimTransport(
        build_chip(design, chip, divider=divider), design.folder, chip_timeout(design, chip)
    )
    return ChipEngine(design, ChipDriver(transport, design))


def build_chip(
    design: Design, chip: Chip, *, divider: int | None = None, cflags: tuple[str, ...] = CFLAGS
) -> Path:
    """The executable of the simulated chip; see ``simulate_chip``."""
    divider = divider or chip.divider or LEAST_DIVIDER
    if divider < LEAST_DIVIDER:
        raise InputError(f"a serial line needs {LEAST_DIVIDER} cycles a bit, not {divider}.")
    line = {
        "DIVQAT_FT245": int(chip.interface == "ft245"),
        "DIVQAT_PERIOD_PS": 1e6 / chip.clock_mhz,
    }
    return verilate(
        design.folder,
        chip.all_sources(design),
        chip.top,
        driver=_DRIVER,
        defines=("DIVQAT_SIM", f"DIVQAT_DIVIDER={divider}"),
        cflags=cflags,
        headers={"line.h": "".join(f"#define {k} {v}\n" for k, v in line.items())},
    )


def chip_timeout(design: Design, chip: Chip) -> int:
    """Clock cycles without a byte moved after which nothing will come any more."""
    return watchdog(design) + _SLACK + 20 * (chip.divider or 1)


class SimTransport:
    """A link to a simulated chip, bit by bit on its pins.

    The chip's time runs only while ``read`` waits. Nothing depends on the machine's speed: the
    same writes and reads give the same cycles.

    Args:
        executable: as ``build_chip`` gives.
        folder: the design's, where its memory files are.
        timeout: clock cycles without a byte moved after which ``read`` gives up.

    Attributes:
        cycles: of the chip's clock since power-up.
        faults: clock edges at which nobody or both sides drove FTDI's bus, or stop bits that the
            chip did not send; 0 in a right design.
    """

    def __init__(self, executable: Path, folder: Path, timeout: int = 1_000_000) -> None:
        # A file, so that a talkative design cannot block on a full pipe.
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [str(executable)],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            start_new_session=True,
        )
        self._timeout = timeout
        self.cycles = 0
        self.faults = 0

    def write(self, data: bytes) -> None:
        """Queue bytes on the line to the chip."""
        self._request(struct.pack("<cI", b"W", len(data)) + data)

    def read(self, count: int) -> bytes:
        """Run the chip until ``count`` bytes came, or the time-out is over."""
        self._request(struct.pack("<cIQ", b"R", count, self._timeout))
        self.cycles, self.faults, length = struct.unpack("<QQI", self._get(20))
        return self._get(length)

    def line(self, bit_cycles: float, stall_percent: int = 0) -> None:
        """Change the line.

        Args:
            bit_cycles: of a serial line, clock cycles a bit at the host's end.
            stall_percent: of FTDI's clock edges, how many find its buffers full or empty.
        """
        self._request(struct.pack("<cdI", b"S", bit_cycles, stall_percent))

    def close(self) -> None:
        """End the simulation."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._messages):
            if pipe is not None:
                with suppress(BrokenPipeError):  # what it had not read when it died
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, request: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
        except BrokenPipeError as e:
            raise self._ended() from e

    def _get(self, count: int) -> bytes:
        assert self._process.stdout is not None
        received = self._process.stdout.read(count)
        if len(received) < count:
            raise self._ended()
        return received

    def _ended(self) -> SimulationError:
        return SimulationError(
            f"the simulation of the chip ended by itself (exit code {self._process.wait()}). "
            "Try again; out of memory is a frequent reason."
        )

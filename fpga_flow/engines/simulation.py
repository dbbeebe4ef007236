"""One running simulation: the process around a Verilated design, and what it answers."""

import contextlib
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import DivQATError
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.engines.verilator import verilate
from fpga_flow.rtl.design import Bytes, Design, Node

_HEAD = struct.Struct("<12Q")
_ANSWER = struct.Struct("<8Q")
_TAP = struct.Struct("<5Q")
Cycles = npt.NDArray[np.int64]


class SimulationError(DivQATError):
    """A simulation died, or the simulated hardware stopped answering (exit code 1)."""


@dataclass(frozen=True)
class Tap(ShortRepr):
    """What was seen on a node's output stream.

    Attributes:
        beats: handshakes.
        valid: whether a beat was offered in the last cycle, and ``ready``, would be taken.
        most: the most beats that were ever inside the node, where it gives what it takes.
        data: uint8 (beats, bytes), empty unless kept.
    """

    beats: int
    valid: bool
    ready: bool
    most: int
    data: Bytes


@dataclass(frozen=True)
class Answer(ShortRepr):
    """What a batch gave.

    Attributes:
        whole: False when the hardware stopped before the last output beat.
        cycles: clock cycles from the end of reset to the last output beat.
        first_input: cycle in which the first input beat was taken.
        last_output: int64 (N,), cycle of each image's last output beat.
        taken: input beats taken, and ``given``, output beats given.
        beats: uint8 (N, beats, bytes), what left.
        taps: one a node, in chain order; empty without taps.
        seconds: wall time of only the simulation.
    """

    whole: bool
    cycles: int
    first_input: int
    last_output: Cycles
    taken: int
    given: int
    beats: Bytes
    taps: tuple[Tap, ...]
    seconds: float


def compiled(design: Design, *, taps: bool = False) -> Path:
    """The design's executable; ``taps`` adds outputs that show every node's stream.

    Raises:
        ToolMissingError: Verilator or g++ is not installed.
        VerilationError: the design is refused.
    """
    nodes = design.nodes if taps else ()
    return verilate(
        design.folder,
        design.sources,
        design.top,
        defines=("DIVQAT_TAPS",) if taps else (),
        headers={"ports.h": ports(nodes)},
    )


def ports(nodes: Sequence[Node]) -> str:
    """The header that tells the driver which taps there are."""
    taps = [f"TAP({k}, {node.name}, {node.output.bytes})" for k, node in enumerate(nodes)]
    return f"#define TAPS {len(taps)}\n#define EVERY_TAP {' '.join(taps)}\n"


class Simulation:
    """A process that simulates a design, batch after batch; not to be shared by threads.

    Args:
        design: the design; its folder is the process' working directory.
        executable: what ``compiled`` gave.
    """

    def __init__(self, design: Design, executable: Path) -> None:
        self._design = design
        # A file, so that a talkative design cannot block on a full pipe.
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [str(executable)],
            cwd=design.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            # Ctrl-C goes to us alone; our end ends the process: it reads the end of stdin.
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Process number."""
        return self._process.pid

    def close(self) -> None:
        """Stop the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._messages):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what a dead one had not read
                    pipe.close()

    def run(
        self,
        beats: Bytes,
        *,
        idle: int = 0,
        back_pressure: int = 0,
        seed: int = 0,
        observe: bool = False,
        limits: Sequence[int] = (),
    ) -> Answer:
        """Simulate a batch from reset on.

        Args:
            beats: uint8 (N, beats, bytes), as ``Design.beats`` packs images.
            idle: percent of cycles in which no input is offered, 0 to 99.
            back_pressure: percent of cycles in which no output is taken, 0 to 99.
            seed: of those cycles.
            observe: keep the data of every tap, and go on after the last output beat until
                nothing moves.
            limits: entries a FIFO may hold, of a design compiled with such FIFOs.

        Raises:
            SimulationError: the process died.
        """
        design = self._design
        shape = (len(beats), design.output.beats, design.output.bytes)
        head = _HEAD.pack(
            len(beats),
            *beats.shape[1:],
            *shape[1:],
            idle,
            back_pressure,
            seed,
            watchdog(design, max(idle, back_pressure)),
            observe,
            len(limits),
            observe,
        )
        try:
            stdin = self._process.stdin
            assert stdin is not None
            stdin.write(head + struct.pack(f"<{len(limits)}Q", *limits))
            stdin.write(beats.tobytes())
            stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        return self._answer(shape, observe)

    def _answer(self, shape: tuple[int, int, int], observe: bool) -> Answer:
        status, cycles, first, taken, given, taps, nanoseconds, _ = _ANSWER.unpack(
            self._read(_ANSWER.size)
        )
        seen = [_TAP.unpack(self._read(_TAP.size)) for _ in range(taps)]
        last = np.frombuffer(self._read(8 * shape[0]), "<i8")
        beats = np.frombuffer(self._read(int(np.prod(shape))), np.uint8).reshape(shape)
        found = []
        for count, width, valid, ready, most in seen:
            data = self._read(count * width if observe else 0)
            rows = np.frombuffer(data, np.uint8).reshape(-1, width)
            found.append(Tap(count, bool(valid), bool(ready), most, rows))
        return Answer(
            whole=status == 0,
            cycles=cycles,
            first_input=first,
            last_output=last,
            taken=taken,
            given=given,
            beats=beats,
            taps=tuple(found),
            seconds=nanoseconds / 1e9,
        )

    def _read(self, size: int) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        data = stdout.read(size)
        if len(data) != size:
            raise self._died()
        return data

    def _died(self) -> SimulationError:
        code = self._process.wait()
        how = f"was killed (signal {-code})" if code < 0 else f"ended (exit code {code})"
        self._messages.seek(0)
        said = self._messages.read().decode(errors="replace").strip().splitlines()
        tail = f" It said: {' '.join(said[-3:])}" if said else ""
        return SimulationError(
            f"the simulation of {self._design.folder} {how} before it answered. No answer of "
            f"this batch is used. Try again; out of memory is a frequent reason.{tail}"
        )


def watchdog(design: Design, percent: int = 0) -> int:
    """Cycles without a handshake after which a design is taken to hang.

    Twice all layers one after another, for one image: no layer waits longer for its input. More
    with random stalls, by the cycles that they take.
    """
    alone = sum(max(node.finn_cycles, node.input.beats, node.output.beats) for node in design.nodes)
    return (2 * alone + 10_000) * 100 // (100 - percent)

"""The RTL engine: the generated hardware itself, simulated cycle by cycle."""

import os
import queue
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import InputError
from divqat_brevitas.input_range import InputRange
from fpga_flow.engines.simulation import Answer, Simulation, SimulationError, compiled
from fpga_flow.engines.verilator import prepare
from fpga_flow.lowering import check_images
from fpga_flow.lowering.answer import AnswerUnit
from fpga_flow.rtl.design import RECORD, Bytes, Design, Integers

FloatArray = npt.NDArray[np.float32]
# Images a process is given at once: bounds memory; the pipeline's filling is paid once a batch.
_BATCH = 1024
_MAX_STALL = 0.95


@dataclass(frozen=True)
class Timing:
    """Cycles of a batch, without random stalls deterministic.

    Attributes:
        latency_cycles: from the first image's first beat to its last answer, both included.
        interval_cycles: initiation interval: cycles from one image's answer to the next's, mean
            over the second half of the batch.
        cycles: of the whole batch.
        images: in the batch.
        seconds: wall time of the simulation on one core.
    """

    latency_cycles: int
    interval_cycles: float
    cycles: int
    images: int
    seconds: float

    def images_per_s(self, clock_mhz: float) -> float:
        """Images the hardware takes in a second at a clock of ``clock_mhz``."""
        return clock_mhz * 1e6 / self.interval_cycles


class RtlEngine:
    """Simulates a hardware design in Verilator, bit by bit and cycle by cycle.

    The design is compiled at the first call (seconds to minutes; once, see ``verilate``). Images
    are split over processes, which start with the first batch and end with ``close`` or the
    program.

    Args:
        source: a design or its folder; or the folder of a FINN build or a QONNX file, for
            which a design with default settings is generated in a temporary folder.
        answer: the answer unit it is generated with; a design has to have the same one. None:
            what a design has, or none.
        threads: processes; None: one a core.
        idle: fraction of cycles, 0 to 0.95, in which no input is offered, at random.
        back_pressure: fraction of cycles in which no output is taken, at random.
        seed: of those cycles.

    Raises:
        InputError: nothing of the kind is at ``source``, or a value is out of range.
        ToolMissingError: Verilator or a C++ compiler is missing (or finn-plus, to generate).
        VerilationError: Verilator refuses the design.

    Example:
        >>> engine = RtlEngine(Path("runs/demo/compile/qat/design"))  # doctest: +SKIP
        >>> engine.predict(images).argmax(axis=1)  # doctest: +SKIP
        array([7, 2, 1])
    """

    name = "rtl"

    def __init__(
        self,
        source: Design | Path | str,
        *,
        answer: AnswerUnit | None = None,
        threads: int | None = None,
        idle: float = 0.0,
        back_pressure: float = 0.0,
        seed: int = 0,
    ) -> None:
        for name, value in (("idle", idle), ("back_pressure", back_pressure)):
            if not 0 <= value <= _MAX_STALL:
                raise InputError(f"{name} must be from 0 to {_MAX_STALL}, not {value!r}.")
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, not {threads!r}.")
        self.design = source if isinstance(source, Design) else self._load(Path(source), answer)
        if answer is not None and self.design.unit != answer:
            raise InputError(
                f"the hardware design {self.design.folder} gives {self.design.answer}, not the "
                f"{answer.name} that was asked for: compile it with compile.answer="
                f"{answer.name!r}, or leave the answer out."
            )
        self._threads = threads or len(os.sched_getaffinity(0))
        self._idle, self._back_pressure = round(100 * idle), round(100 * back_pressure)
        self._seed = seed
        self._idling: queue.LifoQueue[Simulation] = queue.LifoQueue()
        self._started: list[Simulation] = []
        self._executable: Path | None = None

    @property
    def input_range(self) -> InputRange:
        """The values that an input may have."""
        return self.design.input_step.declared

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def predict(self, images: FloatArray) -> FloatArray:
        """Logits, float32 (N, classes), of float32 images (N, *input_shape) in the input range.

        For a design with an answer unit: what a host computes from its codes.

        Raises:
            InputError: images of another kind.
            SimulationError: a process died, or the hardware hangs, with the stream named.
        """
        return self.design.predict(self._run(images))

    def answers(self, images: FloatArray) -> Integers:
        """The integers that leave the chip: accumulators or codes, int64 (N, classes).

        (N, 1) for a design that returns only labels.
        """
        return self.design.answers(self._run(images))

    def accumulators(self, images: FloatArray) -> dict[str, Integers]:
        """Last accumulators, int64 (N, classes), by layer name."""
        return {self.design.output_layer: self.design.accumulators(self._run(images))}

    def labels(self, images: FloatArray) -> Integers:
        """Labels, int64 (N,); all that a design that chooses them on the chip gives."""
        return self.design.labels(self._run(images))

    def measure(self, images: FloatArray) -> Timing:
        """Simulate ``images`` as one stream in one process, and tell its cycles.

        Raises:
            InputError: fewer than 2 images, or images of another kind.
            SimulationError: as ``predict``.
        """
        check_images(images, self.design.input_shape, self.design.input_step.declared)
        if len(images) < 2:
            raise InputError("an initiation interval takes at least 2 images.")
        return timing(self._answer(self.design.beats(images), self._seed))

    def close(self) -> None:
        """Stop all processes; the next call starts them again."""
        while self._started:
            self._started.pop().close()
        self._idling = queue.LifoQueue()

    def _run(self, images: FloatArray) -> Bytes:
        """Output beats, uint8 (N, beats, bytes)."""
        check_images(images, self.design.input_shape, self.design.input_step.declared)
        beats = self.design.beats(images)
        batches = _split(beats, self._threads)
        seeds = range(self._seed, self._seed + len(batches))
        with ThreadPoolExecutor(self._threads) as pool:
            answers = list(pool.map(self._answer, batches, seeds))
        output = self.design.output
        empty = np.empty((0, output.beats, output.bytes), dtype=np.uint8)
        return np.concatenate([empty, *(one.beats for one in answers)])

    def _answer(self, beats: Bytes, seed: int) -> Answer:
        simulation = self._simulation()
        try:
            answer = simulation.run(
                beats, idle=self._idle, back_pressure=self._back_pressure, seed=seed
            )
        except BaseException:
            simulation.close()  # its pipes may hold half an answer
            raise
        self._idling.put(simulation)
        if not answer.whole:
            from fpga_flow.engines.taps import explain_hang

            raise SimulationError(
                explain_hang(
                    self.design,
                    beats,
                    answer,
                    idle=self._idle,
                    back_pressure=self._back_pressure,
                    seed=seed,
                )
            )
        return answer

    def _simulation(self) -> Simulation:
        try:
            return self._idling.get_nowait()
        except queue.Empty:
            pass
        # Two threads that come here at once wait for one compilation: the cache has a lock.
        executable = self._executable = self._executable or compiled(self.design)
        simulation = Simulation(self.design, executable)
        self._started.append(simulation)
        return simulation

    def _load(self, path: Path, answer: AnswerUnit | None) -> Design:
        if (path / RECORD).is_file() or (path.is_dir() and not (path / "build.json").is_file()):
            return Design.load(path)
        from fpga_flow.compile import CompileSettings, FinnBuild, compile_finn
        from fpga_flow.compile.worker_process import Worker
        from fpga_flow.rtl import DesignSettings, generate_design
        from fpga_flow.rtl.refusals import refuse_without_rtl

        self._temporary = tempfile.TemporaryDirectory(prefix="divqat-rtl-")
        folder = Path(self._temporary.name)
        build = FinnBuild.load(path) if path.is_dir() else None
        if build is None:
            refuse_without_rtl(path)
        prepare()
        # One worker, as FINN's imports take longer than either of its jobs.
        work, log = folder / "work", folder / "finn.log"
        work.mkdir()
        with Worker(work, log, log_kept=False) as worker:
            if build is None:
                build = compile_finn(path, folder / "build", CompileSettings(), worker)
            settings = DesignSettings(answer=answer)
            return generate_design(build, folder / "design", settings, worker)


def timing(answer: Answer) -> Timing:
    """Latency and interval of a batch of at least 2 images."""
    last = answer.last_output
    middle = (len(last) - 1) // 2
    return Timing(
        latency_cycles=int(last[0]) - answer.first_input + 1,
        interval_cycles=float(last[-1] - last[middle]) / (len(last) - 1 - middle),
        cycles=answer.cycles,
        images=len(last),
        seconds=answer.seconds,
    )


def _split(beats: Bytes, parts: int) -> Sequence[Bytes]:
    """Equal batches, as many as processes or a multiple."""
    if len(beats) == 0:
        return []
    rounds = -(-len(beats) // (parts * _BATCH))
    return np.array_split(beats, min(len(beats), parts * rounds))

"""The self-test of a chip: a design's reference vectors through it, every response compared."""

import datetime
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np

from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.files import read_json, sha256_file
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.engines.chip import SimTransport, build_chip, chip_timeout
from fpga_flow.engines.simulation import SimulationError
from fpga_flow.engines.vectors import ReferenceVectors
from fpga_flow.host.chip import Chip
from fpga_flow.host.driver import ChipDriver, FtdiTransport, SerialTransport
from fpga_flow.host.power import PowerReading
from fpga_flow.rtl.design import Bytes, Design
from fpga_flow.synthesis import BitstreamReport

SIMULATION = "simulation"
_BATCH = 4096  # images; the link drains once a batch, which a window of at most 64 hardly notices
_SHOWN = 20  # mismatches that a record lists
_PATIENCE = 0.5  # seconds without a byte, at least: USB bridges and busy hosts
Clock = Callable[[], float]


@dataclass(frozen=True)
class BuiltChip(ShortRepr):
    """What a build's folder holds of a chip.

    Attributes:
        design: the network's design.
        chip: the design with its host interface.
        vectors: what goes in, and what has to come out.
        bitstream: the bitstream's report; None where the build stopped before it.
        speed: simulated cycles (``speed.json``); empty without Verilator.
    """

    design: Design
    chip: Chip
    vectors: ReferenceVectors
    bitstream: BitstreamReport | None
    speed: Mapping[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``design/``, ``chip/``, ``bitstream/`` and ``speed.json``.

        Raises:
            InputError: a part is missing, damaged, or was built from another design.
        """
        design, chip = Design.load(folder / "design"), Chip.load(folder / "chip")
        chip.check_design(design)
        vectors = ReferenceVectors.load(chip.folder, design)
        bitstream = None
        if (folder / "bitstream" / BitstreamReport.RECORD).is_file():
            bitstream = BitstreamReport.load(folder / "bitstream")
            if bitstream.design_sha256 != design.digest:
                raise InputError(
                    f"{bitstream.folder} was made from another design than {design.folder}. "
                    "Run `divqat compile` again."
                )
        speed = folder / "speed.json"
        return cls(design, chip, vectors, bitstream, read_json(speed) if speed.is_file() else {})

    @contextmanager
    def connected(self, port: str) -> Iterator[tuple[ChipDriver, Clock]]:
        """The driver of the chip at ``port``, and a clock in seconds: the host's or simulated."""
        clock_hz, cycles = self.chip.clock_mhz * 1e6, chip_timeout(self.design, self.chip)
        link: SimTransport | SerialTransport | FtdiTransport
        now: Clock = time.perf_counter
        if port == SIMULATION:
            simulated = SimTransport(build_chip(self.design, self.chip), self.design.folder, cycles)
            link, now = simulated, lambda: simulated.cycles / clock_hz
        elif self.chip.baud is not None:
            link = SerialTransport(port, self.chip.baud, max(_PATIENCE, cycles / clock_hz))
        else:
            link = FtdiTransport(port, max(_PATIENCE, cycles / clock_hz))
        try:
            yield ChipDriver(link, self.design), now
        finally:
            link.close()


@dataclass(frozen=True)
class Mismatch:
    """An integer that differs.

    Attributes:
        image: its number among the reference vectors.
        class_index: its class; None where the response is a label.
        expected: the integer engine's.
        received: the chip's.
    """

    image: int
    class_index: int | None
    expected: int
    received: int

    def __str__(self) -> str:
        """One line."""
        of = "label" if self.class_index is None else f"class {self.class_index}"
        return f"image {self.image}, {of}: {self.received} instead of {self.expected}"


@dataclass(frozen=True)
class Measurement(ShortRepr):
    """What came of the images.

    Attributes:
        reported_digest: the design's first 8 bytes, as the chip reports them, in hexadecimal.
        images: responses that were compared.
        integers: integers in them.
        wrong_images: responses that differ.
        wrong_integers: integers that differ.
        mismatches: the first 20 that are not the same.
        latency_median_s: seconds from sending an image to its response, over the link.
        latency_p95_s: not exceeded by 95 % of them.
        images_per_s: over the link, as many images under way as the chip allows.
        counted_latency_cycles: the chip's own counter: cycles from the last beat of an image into
            the core to its response.
        recoveries: times the link had to be set up again.
        damaged_frames: that the chip counted since then, up to 255.
    """

    reported_digest: str
    images: int
    integers: int
    wrong_images: int
    wrong_integers: int
    mismatches: tuple[Mismatch, ...]
    latency_median_s: float
    latency_p95_s: float
    images_per_s: float
    counted_latency_cycles: int
    recoveries: int
    damaged_frames: int


def measure(
    driver: ChipDriver,
    design: Design,
    vectors: ReferenceVectors,
    images: int,
    now: Clock = time.perf_counter,
    show: Callable[[int], None] = lambda done: None,
) -> Measurement:
    """Every vector alone for the latency, then ``images`` of them, repeated, for the rate.

    Raises:
        CheckFailedError: the chip stops responding.
    """
    beats = design.beats(vectors.images)
    compared = _Compared(design, vectors)
    seconds = []
    try:
        for number in range(len(beats)):
            start = now()
            received = driver.run(beats[number : number + 1])
            seconds.append(now() - start)
            compared.add(np.array([number]), received)
        latency = driver.status().latency
        elapsed = 0.0
        for first in range(0, images, _BATCH):
            numbers = np.arange(first, min(first + _BATCH, images)) % len(beats)
            sent = beats[numbers]
            start = now()
            received = driver.run(sent)
            elapsed += now() - start
            compared.add(numbers, received)
            show(first + len(numbers))
        errors = driver.status().errors
    except (CheckFailedError, SimulationError) as e:
        raise CheckFailedError(
            f"the chip stopped after {compared.images} compared images: {e} Nothing was recorded."
        ) from e
    return Measurement(
        reported_digest=driver.identity.digest.hex(),
        images=compared.images,
        integers=compared.integers,
        wrong_images=compared.wrong_images,
        wrong_integers=compared.wrong_integers,
        mismatches=tuple(list(compared.mismatches)[:_SHOWN]),
        latency_median_s=float(np.median(seconds)),
        latency_p95_s=float(np.quantile(seconds, 0.95, method="higher")),
        images_per_s=images / elapsed,
        counted_latency_cycles=latency,
        recoveries=driver.recoveries - 1,  # the first one finds the chip
        damaged_frames=errors,
    )


class _Compared:
    """Counts of responses compared by equality."""

    def __init__(self, design: Design, vectors: ReferenceVectors) -> None:
        self._design, self._expected = design, vectors.responses
        self.images = self.integers = self.wrong_images = self.wrong_integers = 0
        self.mismatches: dict[Mismatch, None] = {}  # a set in order

    def add(self, numbers: np.ndarray[Any, Any], received: Bytes) -> None:
        """Compare the responses to the vectors of these numbers."""
        responses, expected = self._design.answers(received), self._expected[numbers]
        wrong = responses != expected
        self.images += len(numbers)
        self.integers += wrong.size
        self.wrong_images += int(wrong.any(axis=1).sum())
        self.wrong_integers += int(wrong.sum())
        is_label = self._design.label_only
        for row, column in np.argwhere(wrong) if len(self.mismatches) < _SHOWN else ():
            self.mismatches[
                Mismatch(
                    int(numbers[row]),
                    None if is_label else int(column),
                    int(expected[row, column]),
                    int(responses[row, column]),
                )
            ] = None


@dataclass(frozen=True)
class SelfTest(ShortRepr):
    """A self-test's outcome; ``str`` gives the lines that `divqat board selftest` prints.

    Attributes:
        board: what its user calls the board; None: simulated, no board.
        built: what was tested.
        measured: counts, latency and rate.
        power: the owner's reading, or None.
        file: the record.
        date: of the test, UTC.
    """

    board: str | None
    built: BuiltChip
    measured: Measurement
    power: PowerReading | None
    file: Path
    date: datetime.date = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).date())

    @property
    def passed(self) -> bool:
        """Whether every response was equal."""
        return self.measured.wrong_images == 0

    def document(self) -> dict[str, Any]:
        """The record, as JSON values."""
        chip, design, found = self.built.chip, self.built.design, self.measured
        bitstream, speed = self.built.bitstream, self.built.speed
        cycles = speed.get("cycles_per_image")
        clock, parts = "host", "Host, USB and line"
        if self.board is None:
            clock, parts = "simulated clock, no board", "The simulated line and its framing"
        package = "verilator" if self.board is None else "pyserial" if chip.baud else "pyftdi"
        return {
            "schema": 1,
            "passed": self.passed,
            "board": self.board,
            "date": self.date.isoformat(),
            "design": {
                "digest": design.digest,
                "digest_reported_by_chip": found.reported_digest,
                "onnx_sha256": design.onnx_sha256,
                "answer": design.answer,
            },
            "bitstream": bitstream
            and {
                "sha256": sha256_file(bitstream.bitstream),
                "part": bitstream.part,
                "chip": bitstream.chip,
            },
            "responses": {
                "vectors": len(self.built.vectors.images),
                "images": found.images,
                "integers": found.integers,
                "wrong_images": found.wrong_images,
                "wrong_integers": found.wrong_integers,
                "mismatches": [asdict(one) for one in found.mismatches],
            },
            "link": {
                "interface": chip.interface,
                "baud": chip.baud,
                "window": chip.window,
                "timed_by": clock,
                "latency_median_s": found.latency_median_s,
                "latency_p95_s": found.latency_p95_s,
                "images_per_s": found.images_per_s,
                "recoveries": found.recoveries,
                "damaged_frames": found.damaged_frames,
                "note": f"{parts} are part of these times: they are the link's, not the core's.",
            },
            "core": {
                "clock_mhz": chip.clock_mhz,
                "counted_latency_cycles": found.counted_latency_cycles,
                "counted_by": "chip" if self.board is not None else "simulated chip, no board",
                "simulated_cycles_per_image": cycles,
                "simulated_latency_cycles": speed.get("latency_cycles"),
                "simulated_images_per_s": cycles and chip.clock_mhz * 1e6 / cycles,
            },
            "power": self.power and self._power(self.power),
            "versions": {
                **design.versions,
                **(bitstream.versions if bitstream else {}),
                "divqat": version("divqat"),
                "python": platform.python_version(),
                package: version(package),
            },
        }

    def _power(self, reading: PowerReading) -> dict[str, Any]:
        """The reading, and the energy where all responses are right."""
        rate = self.measured.images_per_s
        return {
            "reading": reading.record(),
            "joules_per_image": reading.joules_per_image(rate) if self.passed else None,
            "note": "Read by the board's owner: the whole board at its USB plug. Energy is load_w "
            "over this run's images_per_s, as MLPerf Tiny counts it.",
        }

    def __str__(self) -> str:
        """Lines of text."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        record, found = self.document(), self.measured
        link, core = record["link"], record["core"]
        design = self.built.design.digest[:16]
        yield f"board      {self.board or 'none: simulated'}, design {design}"
        right = found.images - found.wrong_images
        yield f"responses  {right:,} of {found.images:,} images equal"
        yield from (f"           {one}" for one in found.mismatches)
        line = link["interface"] + (f", {link['baud']:,} baud" if link["baud"] else "")
        yield (
            f"link       {found.images_per_s:,.1f} images/s; latency "
            f"{found.latency_median_s * 1e3:.3f} ms median, {found.latency_p95_s * 1e3:.3f} ms p95 "
            f"({line}, {link['timed_by']})"
        )
        counted = f"{found.counted_latency_cycles:,} cycles of latency ({core['counted_by']})"
        if core["simulated_images_per_s"] is not None:
            counted += f"; simulated: {core['simulated_images_per_s']:,.1f} images/s"
        yield f"core       {core['clock_mhz']:g} MHz, {counted}"
        if record["power"] is None:
            yield "power      not measured (see `divqat board meter --help`)"
        else:
            joules = record["power"]["joules_per_image"]
            energy = "" if joules is None else f", {joules * 1e3:.3g} mJ an image"
            assert self.power is not None
            yield (
                f"power      {self.power.load_w:g} W under load, {self.power.idle_w:g} W idle"
                f"{energy} (the whole board, {self.power.meter})"
            )
        yield f"record     {self.file}"

"""The host's side of the protocol: links to a chip, its driver, and the chip as an engine."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import CheckFailedError, InputError, ToolMissingError
from divqat_brevitas.input_range import InputRange
from fpga_flow.host import protocol
from fpga_flow.host.protocol import Damage, Identity, Reader, Reply, Status
from fpga_flow.lowering import check_images
from fpga_flow.rtl.design import Bytes, Design


class Transport(Protocol):
    """A link of bytes to a chip and back."""

    def write(self, data: bytes) -> None:
        """Send bytes; may return before they have left."""
        ...

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes; fewer only when none came for the transport's time-out."""
        ...

    def close(self) -> None:
        """Give the link free."""
        ...


class ChipDriver:
    """Talks to a chip that holds a design.

    It keeps up to the chip's window of images under way. When anything does not arrive as sent,
    it flushes and resets the link and sends the unanswered images again: an answer counts only
    with a right check, the sequence number of the oldest open image, and no reset since.

    Args:
        transport: the link.
        design: what the chip should hold.
        retries: times in a row that nothing may come back before it gives up.

    Attributes:
        identity: what the chip said of itself.
        recoveries: times the link had to be set up again.

    Raises:
        InputError: the chip holds another design, or speaks another version.
        CheckFailedError: no chip answers.

    Example:
        >>> driver = ChipDriver(SerialTransport("/dev/ttyUSB0"), design)  # doctest: +SKIP
        >>> answers = driver.run(design.beats(images))  # doctest: +SKIP
    """

    def __init__(self, transport: Transport, design: Design, retries: int = 5) -> None:
        self._link = transport
        self._retries = retries
        self._sequence = 0
        self._image = design.input.beats * design.input.bytes
        self._answer = (design.output.beats, design.output.bytes)
        self._reader = Reader(design.output.beats * design.output.bytes)
        self.recoveries = 0
        self._recover()
        self.identity = self._identify(design)

    def run(self, beats: Bytes) -> Bytes:
        """Answers, uint8 (N, output beats, bytes), to the images of ``Design.beats``."""
        if beats.ndim != 3 or beats[0:1].size not in (0, self._image):
            raise InputError(
                f"the chip takes images of {self._image} bytes; got an array {beats.shape}."
            )
        answers = np.zeros((len(beats), *self._answer), np.uint8)
        todo = deque(range(len(beats)))  # not sent
        open_: deque[tuple[int, int]] = deque()  # (sequence, image), oldest first
        failures = 0
        while todo or open_:
            while todo and len(open_) < self.identity.window:
                image = todo.popleft()
                open_.append((self._send(protocol.RUN, beats[image].tobytes()), image))
            reply = self._receive()
            wanted = (protocol.REPLY | protocol.RUN, open_[0][0])
            if reply is not None and (reply.kind, reply.sequence) == wanted:
                image = open_.popleft()[1]
                answers[image] = np.frombuffer(reply.payload, np.uint8).reshape(self._answer)
                failures = 0
                continue
            failures += 1
            if failures > self._retries:
                raise self._silent(f"after {len(beats) - len(todo) - len(open_)} images")
            todo.extendleft(image for _, image in reversed(open_))
            open_.clear()
            self._recover()
        return answers

    def status(self) -> Status:
        """The chip's counters since the last reset (CheckFailedError: no right reply came)."""
        return Status.unpack(self._ask(protocol.STATUS))

    def reset(self) -> None:
        """Throw away what is under way in the chip, and its counters."""
        self._recover()

    def close(self) -> None:
        """Give the link free."""
        self._link.close()

    def _identify(self, design: Design) -> Identity:
        identity = Identity.unpack(self._ask(protocol.IDENTIFY))
        if identity.version != protocol.VERSION:
            raise InputError(
                f"the chip speaks version {identity.version} of the host protocol, this is "
                f"{protocol.VERSION}. Make its bitstream again with this version."
            )
        if identity.digest != bytes.fromhex(design.digest)[:8]:
            raise InputError(
                f"the chip holds design {identity.digest.hex()}, not {design.digest[:16]}. "
                f"Load the bitstream that was made from {design.folder}."
            )
        return identity

    def _ask(self, kind: int) -> bytes:
        """The payload of the reply to a command."""
        for _ in range(self._retries + 1):
            sequence = self._send(kind)
            reply = self._receive()
            wanted = (protocol.REPLY | kind, sequence)
            if reply is not None and (reply.kind, reply.sequence) == wanted:
                return reply.payload
            self._recover()
        raise self._silent("although it answers to a reset")

    def _send(self, kind: int, payload: bytes = b"") -> int:
        """Send a command; its sequence number."""
        sequence = self._sequence
        self._sequence = (sequence + 1) % 256
        self._link.write(protocol.command(kind, sequence, payload))
        return sequence

    def _receive(self) -> Reply | None:
        """The next frame; None if none came in time, or something else."""
        try:
            while (reply := self._reader.take()) is None:
                received = self._link.read(self._reader.missing())
                if not received:
                    return None
                self._reader.feed(received)
        except Damage:
            return None
        return reply

    def _recover(self) -> None:
        """Bring chip and host to a known state: nothing is under way on either side."""
        self.recoveries += 1
        for _ in range(self._retries + 1):
            # Zeros complete whatever frame the chip is in the midst of.
            self._link.write(bytes(self._image + protocol.OVERHEAD))
            sequence = self._send(protocol.RESET)
            expected = protocol.reply(protocol.REPLY | protocol.RESET, sequence)
            while received := self._link.read(len(expected)):
                self._reader.feed(received)
                if self._reader.skip_past(expected):
                    return
        raise self._silent("not even to a reset")

    def _silent(self, how: str) -> CheckFailedError:
        return CheckFailedError(
            f"no right answer from the chip in {self._retries + 1} attempts ({how}). Is the "
            "bitstream loaded, and are the port and its speed right? With a long or bad cable, "
            "use a lower baud rate."
        )


class ChipEngine:
    """Runs images on a chip, simulated or real, to which ``driver`` is connected."""

    name = "chip"

    def __init__(self, design: Design, driver: ChipDriver) -> None:
        self.design = design
        self.driver = driver

    @property
    def input_range(self) -> InputRange:
        """The values that an input may have."""
        return self.design.input_step.declared

    def predict(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits, float32 (N, classes), of float32 images (N, *input_shape) in the input range.

        For a design with an answer unit: what a host computes from its codes.
        """
        return self.design.predict(self._run(images))

    def answers(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """The integers that leave the chip: accumulators or codes, int64 (N, classes).

        (N, 1) for a design that returns only labels.
        """
        return self.design.answers(self._run(images))

    def accumulators(self, images: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.int64]]:
        """The last accumulators, int64 (N, classes), by their layer's name."""
        return {self.design.output_layer: self.design.accumulators(self._run(images))}

    def _run(self, images: npt.NDArray[np.float32]) -> Bytes:
        check_images(images, self.design.input_shape, self.design.input_step.declared)
        return self.driver.run(self.design.beats(images))


@contextmanager
def _lost_link() -> Iterator[None]:
    """Make one readable error of a device that fails under way; such errors are OSErrors."""
    try:
        yield
    except OSError as e:
        raise CheckFailedError(
            f"the link to the board was lost ({e}). Is the cable in, and does another program use "
            "the port?"
        ) from e


class SerialTransport:
    """A serial port, such as a board's USB port: ``/dev/ttyUSB0``, ``COM3``, or a pyserial URL.

    ``baud`` is as ``Chip.baud``; ``read`` gives up after ``timeout`` seconds without a byte.

    Raises:
        ToolMissingError: pyserial is not installed.
        InputError: the port cannot be opened.
    """

    def __init__(self, port: str, baud: int = 3_000_000, timeout: float = 0.5) -> None:
        try:
            serial = import_module("serial")
        except ImportError as e:
            raise ToolMissingError(
                "talking to a board over a serial port needs pyserial: pip install pyserial"
            ) from e
        try:
            self._port: Any = serial.serial_for_url(port, baudrate=baud, timeout=timeout)
        except (serial.SerialException, ValueError) as e:
            raise InputError(f"cannot open the serial port {port} at {baud} baud: {e}.") from e

    def write(self, data: bytes) -> None:
        """Send bytes (CheckFailedError: the port is gone)."""
        with _lost_link():
            self._port.write(data)

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes; what there is when the time-out is over."""
        with _lost_link():
            return bytes(self._port.read(count))

    def close(self) -> None:
        """Close the port."""
        self._port.close()


class FtdiTransport:
    """FTDI's synchronous FIFO (FT232H, FT2232H), by pyftdi; ``url`` is pyftdi's of the device.

    ``read`` gives up after ``timeout`` seconds without a byte.

    Raises:
        ToolMissingError: pyftdi is not installed.
        InputError: the device cannot be opened.
    """

    def __init__(self, url: str = "ftdi:///1", timeout: float = 0.5) -> None:
        try:
            ftdi = import_module("pyftdi.ftdi").Ftdi
        except ImportError as e:
            raise ToolMissingError(
                "talking to a board over an FTDI FIFO needs pyftdi: pip install pyftdi"
            ) from e
        self._device: Any = ftdi()
        self._timeout = timeout
        try:
            self._device.open_from_url(url)
            self._device.set_bitmode(0xFF, ftdi.BitMode.SYNCFF)
            self._device.set_latency_timer(1)
        except (OSError, ValueError) as e:
            raise InputError(f"cannot open the FTDI device {url}: {e}.") from e

    def write(self, data: bytes) -> None:
        """Send bytes (CheckFailedError: the device is gone)."""
        with _lost_link():
            self._device.write_data(data)

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes; what there is when the time-out is over."""
        received = bytearray()
        end = time.monotonic() + self._timeout
        while len(received) < count and time.monotonic() < end:
            with _lost_link():
                part = self._device.read_data(count - len(received))
            if part:
                received += part
                end = time.monotonic() + self._timeout
        return bytes(received)

    def close(self) -> None:
        """Give the device free."""
        self._device.close()

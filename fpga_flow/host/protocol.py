"""The frames between host and chip.

Host to chip:  A5 | command | sequence | image, if the command is RUN | CRC-32
Chip to host:  5A | type    | sequence | payload                      | CRC-32

The check (that of zlib, lowest byte first) covers everything between the first byte and itself.
A frame's length follows only from its second byte and the design. The sequence number is the
host's and comes back with the answer. Answers come in the order of their images; replies to other
commands may come between them.

A frame that was hit on its way is answered by DAMAGED, or, when bytes were lost, by silence until
more bytes come. The host then sends as many zeros as the longest frame has bytes: whatever the
chip was waiting for, it has it, and looks for a new frame afterwards. RESET behind the zeros
throws away what is under way; nothing that comes after its reply is from before.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from divqat_brevitas.short_repr import ShortRepr

VERSION = 1
FROM_HOST = 0xA5
FROM_CHIP = 0x5A
RUN, IDENTIFY, STATUS, RESET = 0x01, 0x02, 0x03, 0x04
REPLY = 0x80  # added to a command
DAMAGED, UNKNOWN = 0xE1, 0xE2
OVERHEAD = 7  # bytes of a frame beside its payload
INTERFACE_CODES = {"uart": 0, "ft245": 1}


def frame(start: int, kind: int, sequence: int, payload: bytes = b"") -> bytes:
    """A whole frame: ``kind`` is a command or type, ``sequence`` is taken modulo 256.

    Example:
        >>> frame(FROM_HOST, RESET, 7).hex(" ")
        'a5 04 07 58 42 d1 bb'
    """
    body = bytes((kind, sequence % 256)) + payload
    return bytes((start,)) + body + struct.pack("<I", zlib.crc32(body))


def command(kind: int, sequence: int, payload: bytes = b"") -> bytes:
    """A frame from the host."""
    return frame(FROM_HOST, kind, sequence, payload)


def reply(kind: int, sequence: int, payload: bytes = b"") -> bytes:
    """A frame from the chip."""
    return frame(FROM_CHIP, kind, sequence, payload)


@dataclass(frozen=True)
class Identity(ShortRepr):
    """What a chip says of itself; its reply to IDENTIFY."""

    version: int  # of the protocol
    interface: str  # "uart" or "ft245"
    digest: bytes  # first 8 bytes of the design's digest
    in_beats: int  # beats an image, and ``in_bytes``, bytes a beat
    in_bytes: int
    out_beats: int  # beats an answer, and ``out_bytes``, bytes a beat
    out_bytes: int
    classes: int  # accumulators an answer
    window: int  # images the host may have sent and not got answers to
    clock_mhz: float  # the core's clock, to 10 kHz

    LENGTH: ClassVar[int] = 24
    _FORM: ClassVar[str] = "<BB8sHHHHHHH"

    @property
    def image(self) -> int:
        """Bytes of an image."""
        return self.in_beats * self.in_bytes

    @property
    def answer(self) -> int:
        """Bytes of an answer."""
        return self.out_beats * self.out_bytes

    def pack(self) -> bytes:
        """The reply's payload, 24 bytes."""
        return struct.pack(
            self._FORM,
            self.version,
            INTERFACE_CODES[self.interface],
            self.digest,
            self.in_beats,
            self.in_bytes,
            self.out_beats,
            self.out_bytes,
            self.classes,
            self.window,
            round(self.clock_mhz * 100),
        )

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """From a reply's payload."""
        fields: list[Any] = list(struct.unpack(cls._FORM, payload))
        names = {code: name for name, code in INTERFACE_CODES.items()}
        fields[1] = names.get(fields[1], "?")
        fields[-1] /= 100
        return cls(*fields)


@dataclass(frozen=True)
class Status:
    """A chip's counters since the last reset; its reply to STATUS."""

    images: int  # answered, modulo 2²⁴
    # Clock cycles from the last image's last beat entering the core to its answer, when one image
    # at a time was under way
    latency: int
    stall_in: int  # cycles in which a beat waited for the core, modulo 2³²
    stall_out: int  # cycles in which the core's answer waited for the link, modulo 2³²
    errors: int  # damaged or unknown frames, up to 255
    overflow: bool  # bytes came faster than the core took them, and were lost
    broken: bool  # the serial line gave a byte without its stop bit
    alarm: bool = False  # the tripwire's, since power-up; a reset of the link leaves it

    LENGTH: ClassVar[int] = 16

    def pack(self) -> bytes:
        """The reply's payload, 16 bytes."""
        short = self.images | self.latency << 24
        flags = self.overflow | self.broken << 1 | self.alarm << 2
        rest = struct.pack("<IIBB", self.stall_in, self.stall_out, self.errors, flags)
        return short.to_bytes(6, "little") + rest

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """From a reply's payload."""
        images, latency = (int.from_bytes(payload[i : i + 3], "little") for i in (0, 3))
        stall_in, stall_out, errors, flags = struct.unpack("<IIBB", payload[6:])
        overflow, broken, alarm = (bool(flags >> bit & 1) for bit in range(3))
        return cls(images, latency, stall_in, stall_out, errors, overflow, broken, alarm)


@dataclass(frozen=True)
class Reply(ShortRepr):
    """A frame from the chip whose check was right."""

    kind: int
    sequence: int
    payload: bytes


class Damage(Exception):  # noqa: N818 - caught by the driver, never shown
    """What came from the chip is no frame."""


class Reader:
    """Takes bytes from the chip, gives frames; ``answer`` is the number of bytes of an answer."""

    def __init__(self, answer: int) -> None:
        self._lengths = {
            REPLY | RUN: answer,
            REPLY | IDENTIFY: Identity.LENGTH,
            REPLY | STATUS: Status.LENGTH,
            REPLY | RESET: 0,
            DAMAGED: 0,
            UNKNOWN: 0,
        }
        self._bytes = bytearray()

    def feed(self, received: bytes) -> None:
        """Add bytes."""
        self._bytes += received

    def missing(self) -> int:
        """Bytes that are missing of the frame under way, at least; 0: one is there."""
        if len(self._bytes) < 2:
            return OVERHEAD - len(self._bytes)
        length = self._lengths.get(self._bytes[1], 0) + OVERHEAD
        return max(0, length - len(self._bytes))

    def take(self) -> Reply | None:
        """The next frame, None if it is not there yet; what is no frame raises Damage and stays."""
        have = self._bytes
        if have and have[0] != FROM_CHIP:
            raise Damage("a byte that starts no frame")
        if len(have) > 1 and have[1] not in self._lengths:
            raise Damage("a frame of no known type")
        if self.missing():
            return None
        end = self._lengths[have[1]] + OVERHEAD
        taken = bytes(have[:end])
        if reply(taken[1], taken[2], taken[3:-4]) != taken:
            raise Damage("a wrong check")
        del have[:end]
        return Reply(taken[1], taken[2], taken[3:-4])

    def skip_past(self, expected: bytes) -> bool:
        """Throw away everything up to and with ``expected``; False if it is not there."""
        place = self._bytes.find(expected)
        if place < 0:
            return False
        del self._bytes[: place + len(expected)]
        return True

"""A chip in Python, a line that damages what passes, and a power reading: for the host's tests."""

import contextlib
import os
import random
import re
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

from fpga_flow.host import protocol
from fpga_flow.host.driver import Transport
from fpga_flow.host.power import write_template
from fpga_flow.host.protocol import Identity, Status


class FakeChip:
    """Behaves as the SystemVerilog does, a byte at a time. A transport.

    Args:
        identity: what it says of itself.
        answer: image bytes -> answer bytes.
        hit: what becomes of bytes on the line, both ways.
    """

    def __init__(
        self,
        identity: Identity,
        answer: Callable[[bytes], bytes],
        hit: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self.identity, self.answer, self.hit = identity, answer, hit
        self.frame = bytearray()
        self.out = bytearray()
        self.images = self.errors = 0
        self.closed = False

    def write(self, data: bytes) -> None:
        for byte in self.hit(data):
            self._take(byte)

    def read(self, count: int) -> bytes:
        given = bytes(self.out[:count])
        del self.out[:count]
        return given

    def close(self) -> None:
        self.closed = True

    def _take(self, byte: int) -> None:
        if not self.frame and byte != protocol.FROM_HOST:
            return
        self.frame.append(byte)
        if len(self.frame) < protocol.OVERHEAD:
            return
        _, kind, sequence = self.frame[:3]
        length = self.identity.image if kind == protocol.RUN else 0
        if len(self.frame) < length + protocol.OVERHEAD:
            return
        whole, payload = bytes(self.frame), bytes(self.frame[3:-4])
        self.frame.clear()
        if protocol.command(kind, sequence, payload) != whole:
            self.errors += 1
            self._send(protocol.DAMAGED, sequence)
        elif kind == protocol.RUN:
            self.images += 1
            self._send(protocol.REPLY | kind, sequence, self.answer(payload))
        elif kind == protocol.IDENTIFY:
            self._send(protocol.REPLY | kind, sequence, self.identity.pack())
        elif kind == protocol.STATUS:
            status = Status(self.images, 0, 0, 0, self.errors, overflow=False, broken=False)
            self._send(protocol.REPLY | kind, sequence, status.pack())
        elif kind == protocol.RESET:
            self.images = self.errors = 0
            self._send(protocol.REPLY | kind, sequence)
        else:
            self._send(protocol.UNKNOWN, sequence)

    def _send(self, kind: int, sequence: int, payload: bytes = b"") -> None:
        self.out += self.hit(protocol.reply(kind, sequence, payload))


class Damaging:
    """Flips, drops, doubles and inserts bytes.

    Args:
        rate: share of bytes hit.
        seed: of chance.
    """

    def __init__(self, rate: float, seed: int) -> None:
        self.rate, self.random, self.hits = rate, random.Random(seed), 0

    def __call__(self, data: bytes) -> bytes:
        passed = bytearray()
        for byte in data:
            if self.random.random() >= self.rate:
                passed.append(byte)
                continue
            self.hits += 1
            how = self.random.randrange(4)
            if how == 0:
                passed.append(byte ^ 1 << self.random.randrange(8))
            elif how == 1:
                passed += bytes((byte, byte))
            elif how == 2:
                # What begins frames hurts most.
                noise = (protocol.FROM_HOST, protocol.FROM_CHIP, protocol.RUN, 0xFF)
                passed += bytes((self.random.choice(noise), byte))
        return bytes(passed)


@contextlib.contextmanager
def serial_port(link: Transport) -> Iterator[str]:
    """The operating system's own serial driver on a pseudo terminal, a chip at its other end."""
    board, port = os.openpty()
    tty.setraw(port)

    def serve() -> None:
        with contextlib.suppress(OSError):  # the port was closed
            while data := os.read(board, 4096):
                link.write(data)
                os.write(board, link.read(1 << 16))
        os.close(board)

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield os.ttyname(port)
    finally:
        os.close(port)
        server.join()


GOOD = {
    "meter": '"FNB58"',
    "date": '"2026-11-30"',
    "seconds": "60",
    "resolution_w": "0.001",
    "idle_w": "0.75",
    "load_w": "1.25",
}


def filled(file: Path, sha256: str = "a" * 64, **changes: str) -> Path:
    """A power reading of that bitstream; ``changes`` are other values, as TOML."""
    write_template(file, sha256)
    text = file.read_text()
    for name, value in {**GOOD, **changes}.items():
        text, count = re.subn(rf"^{name} = \S+", f"{name} = {value}", text, flags=re.MULTILINE)
        assert count == 1
    file.write_text(text)
    return file

"""Links to chips on a desk. Neither was run on hardware; the serial one is tested on a pty."""

import time
from importlib import import_module
from typing import Any

from divqat_brevitas.errors import InputError, ToolMissingError


class SerialTransport:
    """A serial port, such as an FPGA board's USB port.

    Args:
        port: ``/dev/ttyUSB0``, ``COM3``, or any URL of pyserial.
        baud: bits a second, as ``Chip.baud``.
        timeout: seconds without a byte after which ``read`` gives up.

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
        """Send bytes."""
        self._port.write(data)

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes; what there is when the time-out is over."""
        return bytes(self._port.read(count))

    def close(self) -> None:
        """Close the port."""
        self._port.close()


class FtdiTransport:
    """FTDI's synchronous FIFO (FT232H, FT2232H), by pyftdi.

    Args:
        url: pyftdi's URL of the device.
        timeout: seconds without a byte after which ``read`` gives up.

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
        """Send bytes."""
        self._device.write_data(data)

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes; what there is when the time-out is over."""
        received = bytearray()
        end = time.monotonic() + self._timeout
        while len(received) < count and time.monotonic() < end:
            part = self._device.read_data(count - len(received))
            if part:
                received += part
                end = time.monotonic() + self._timeout
        return bytes(received)

    def close(self) -> None:
        """Give the device free."""
        self._device.close()

"""uvicorn's HTTP with time-outs for clients that dribble headers or do not read answers."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from fpga_flow.serve.limits import Limits


class TimedProtocol(H11Protocol):
    """Closes a connection whose request head does not arrive, or whose answer is not taken.

    The body's time is the application's to watch; an idle kept-alive connection is uvicorn's.
    """

    limits = Limits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head: asyncio.TimerHandle | None = None
        self._write: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; they do not give a head that is not whole yet any longer."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_head()
        else:
            self._await_head()

    def on_response_complete(self) -> None:
        """Answered; of the next request a part may be here already."""
        super().on_response_complete()
        if self.cycle.response_complete and self.conn.trailing_data[0]:
            self._await_head()

    def pause_writing(self) -> None:
        """The client reads slower than we write: it has so long to catch up."""
        super().pause_writing()
        if self._write is None:
            self._write = self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It caught up."""
        super().resume_writing()
        self._stop_write()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop_head()
        self._stop_write()
        super().connection_lost(exc)
        # uvicorn's own end of a connection resumes writing, and so may come back here.
        self._stop_write()

    def _await_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(self.limits.header_seconds, self.transport.abort)

    def _stop_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _stop_write(self) -> None:
        if self._write is not None:
            self._write.cancel()
            self._write = None


def timed(limits: Limits) -> type[TimedProtocol]:
    """The protocol with these limits: uvicorn takes a class, and makes one object a connection."""
    return type("Timed", (TimedProtocol,), {"limits": limits})

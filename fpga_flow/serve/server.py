"""The server: GET /info, POST /query; a victim's answers over HTTP, every image counted.

All queries pass one worker thread in turn: decoding, the look at the ledger, the victim, the
commit. Budgets and repeated keys need no more care than that.
"""

import asyncio
import hashlib
import logging
import socket
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib import metadata
from typing import Any

from divqat_brevitas.errors import InputError, ToolMissingError
from divqat_brevitas.extraction.victim import BudgetExceededError, Victim
from divqat_brevitas.input_range import UNIT
from fpga_flow.serve.guard import Guard
from fpga_flow.serve.ledger import ANYONE, QueryLedger
from fpga_flow.serve.limits import Client, Limits, bind, find_client, names_loopback
from fpga_flow.serve.wire import JSON, RequestError, answer_document, decode, error_document

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
except ImportError as e:
    raise ToolMissingError(
        "the server's packages are not installed. Get them with: pip install 'divqat[serve]'"
    ) from e

_LOG = logging.getLogger(__name__)
_KEY = 128
_STOP_SECONDS = 30


class Service:
    """What a server answers with; an ASGI application is its ``app``. It serves once.

    Args:
        victim: answers. The ledger's budget is what counts, so that restarts do not forget.
        shape: of an image, such as (C, H, W).
        classes: how many the victim tells apart.
        ledger: counts; closed by whoever made it.
        limits: of requests and connections.
        clients: who may ask; none: anyone who reaches the address.
        local: refuse requests whose ``Host`` is not this machine.
        model: what ``/info`` calls it.
        guard: the tripwire of every client; its watch is the victim's predictor. None: no tripwire.

    Example:
        >>> import numpy as np
        >>> from torch import nn
        >>> victim = Victim(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), budget=100)
        >>> service = Service(victim, (1, 8, 8), 10, QueryLedger(None, {}, budget=100))
        >>> from fpga_flow.serve import RestVictim
        >>> with running(service) as url:
        ...     RestVictim(url).query(np.zeros((2, 1, 8, 8), np.float32)).shape
        (2, 10)
    """

    def __init__(
        self,
        victim: Victim,
        shape: tuple[int, ...],
        classes: int,
        ledger: QueryLedger,
        *,
        limits: Limits | None = None,
        clients: Sequence[Client] = (),
        local: bool = True,
        model: str = "",
        guard: Guard | None = None,
    ) -> None:
        self.victim = victim
        self.shape = tuple(shape)
        self.classes = classes
        self.ledger = ledger
        self.limits = limits or Limits()
        self.clients = tuple(clients)
        self.local = local
        self.model = model
        self.guard = guard
        if guard is not None:
            guard.restore(ledger)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="victim")
        # Made in the event loop: it belongs to one.
        self._places: asyncio.Semaphore | None = None
        self.app = Starlette(
            routes=[
                Route("/info", self._guarded(self._info), methods=["GET"]),
                Route("/query", self._guarded(self._query), methods=["POST"]),
            ],
            exception_handlers={HTTPException: _http_error},
        )

    def close(self) -> None:
        """Wait for the query under way; there will be no other."""
        self._worker.shutdown(cancel_futures=True)

    def about(self, client: str = ANYONE) -> dict[str, Any]:
        """What ``/info`` tells a client."""
        declared = self.victim.input_range or UNIT
        return {
            "model": self.model,
            "input_shape": list(self.shape),
            "input_range": [declared.low, declared.high],
            "classes": self.classes,
            "oracle": self.victim.oracle,
            "oracle_options": self.victim.options,
            "defence": self.victim.defence,
            "defence_settings": self.victim.defence_settings,
            **self._count(client),
            "budget": self.ledger.budget_of(client),
            "limits": {
                name: getattr(self.limits, name) for name in ("images_per_request", "body_bytes")
            },
            "tripwire": None if self.guard is None else self.guard.tripwire.policy,
            "divqat": metadata.version("divqat"),
        }

    def _count(self, client: str) -> dict[str, int]:
        return {
            "queries_used": self.ledger.used(client),
            "remaining": self.ledger.remaining(client),
        }

    def _guarded(
        self, handler: Callable[[Request, str], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Who asks is known, and what goes wrong is JSON."""

        async def answer(request: Request) -> Response:
            try:
                return await handler(request, self._client(request))
            except RequestError as e:
                return _refusal(e)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody is there to read it
            except Exception:
                _LOG.exception("a request failed; it was not counted")
                message = "the victim failed; the query was not counted."
                return _refusal(RequestError(500, "internal", message))

        return answer

    def _client(self, request: Request) -> str:
        if self.local and not names_loopback(request.headers.get("host", "")):
            message = "this server only answers requests to 127.0.0.1 or localhost."
            raise RequestError(421, "wrong-host", message)
        if not self.clients:
            return ANYONE
        client = find_client(self.clients, request.headers.get("authorization", ""))
        if client is None:
            message = "send the header Authorization: Bearer TOKEN with your token."
            raise RequestError(401, "unauthorized", message)
        return client.name

    async def _info(self, request: Request, client: str) -> Response:
        return JSONResponse(self.about(client))

    async def _query(self, request: Request, client: str) -> Response:
        key = request.headers.get("idempotency-key")
        if key is not None and not (0 < len(key) <= _KEY and key.isascii() and key.isprintable()):
            message = f"Idempotency-Key must be 1 to {_KEY} printable ASCII characters."
            raise RequestError(400, "bad-key", message)
        async with self._place():
            body = await self._body(request)
            kind = request.headers.get("content-type", "")
            loop = asyncio.get_running_loop()
            answer = partial(self._answer, client, key, kind, body)
            document = await loop.run_in_executor(self._worker, answer)
        if self.guard is not None:
            # Not in its place: others are not held up.
            await asyncio.sleep(self.guard.delay(client))
        return Response(document, media_type=JSON)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._places is None:
            self._places = asyncio.Semaphore(self.limits.concurrent)
        try:
            async with asyncio.timeout(self.limits.queue_seconds):
                await self._places.acquire()
        except TimeoutError as e:
            message = "the server is busy: ask again later, under the same Idempotency-Key."
            raise RequestError(503, "busy", message, close=True) from e
        try:
            yield
        finally:
            self._places.release()

    async def _body(self, request: Request) -> bytes:
        """The body, within its size and time; what is somewhat too large is read and dropped.

        A client that is still sending would not see the answer.
        """
        most = self.limits.body_bytes
        too_large = RequestError(
            413, "body-too-large", f"the body may have {most} bytes: send fewer images.", close=True
        )
        declared = request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > 2 * most:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > 2 * most:
                        raise too_large
                    if size <= most:
                        parts.append(part)
                    else:
                        parts.clear()
        except TimeoutError as e:
            message = f"the body did not arrive within {self.limits.body_seconds:g} s."
            raise RequestError(408, "too-slow", message, close=True) from e
        if size > most:
            raise too_large
        return b"".join(parts)

    def _answer(self, client: str, key: str | None, kind: str, body: bytes) -> bytes:
        """One query, in the worker's thread."""
        images = decode(
            body, kind, self.shape, self.limits.images_per_request, self.victim.input_range
        )
        sha256 = hashlib.sha256(images.tobytes()).hexdigest()
        before = None if key is None else self.ledger.recall(client, key)
        if before is not None:
            if before.sha256 != sha256:
                message = "this Idempotency-Key came with other images before: take a new one."
                raise RequestError(422, "key-reused", message)
            return answer_document(before.answers, replayed=True, **self._count(client))
        guard = self.guard
        try:
            if guard is not None:
                guard.check(client)
            with self.ledger.reserve(client, len(images)) as reservation:
                answers = self.victim.query(images)
                if guard is None:
                    reservation.commit(key, sha256, answers)
                else:
                    rejected, states = guard.count(client, images)
                    answers = guard.mask(answers, states)
                    reservation.commit(key, sha256, answers, rejected)
                    guard.keep(client, states, self.ledger.used(client))
        except BudgetExceededError as e:
            raise RequestError(403, "budget-exceeded", str(e)) from e
        except sqlite3.Error as e:
            message = f"the ledger cannot be written ({e}); the query was not counted."
            raise RequestError(507, "ledger", message) from e
        return answer_document(answers, replayed=False, **self._count(client))


def _refusal(error: RequestError) -> Response:
    headers = {"Connection": "close"} if error.close else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == 503:
        headers["Retry-After"] = "1"
    document = error_document(error.code, error.message)
    return Response(document, error.status, headers, media_type=JSON)


async def _http_error(request: Request, error: Exception) -> Response:
    """Paths and methods that are not there."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    message = f"{request.method} {request.url.path}: there are only GET /info and POST /query."
    return _refusal(RequestError(status, "not-found" if status == 404 else "bad-method", message))


def _server(service: Service) -> uvicorn.Server:
    limits = service.limits
    return uvicorn.Server(
        uvicorn.Config(
            service.app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=limits.connections,
            timeout_keep_alive=max(1, round(limits.idle_seconds)),
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
    )


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    service: Service,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    public: bool = False,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Answer requests until the process is interrupted; then finish what is under way.

    Args:
        service: what answers.
        host: an address of this machine.
        port: 0 takes a free one.
        public: take an address that other machines reach. There is no TLS: tokens and images
            travel in the clear.
        ready: called with the URL once connections are taken.

    Raises:
        InputError: an address that cannot be taken, or that needs ``public``.
    """
    listening = bind(host, port, public)
    if ready is not None:
        ready(_url(listening))
    try:
        _server(service).run(sockets=[listening])
    finally:
        service.close()


@contextmanager
def running(service: Service, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """A loopback server in a thread for the length of a block; returns its URL.

    Raises:
        InputError: an address that cannot be taken.
    """
    listening = bind(host, port, public=False)
    server = _server(service)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listening]}, name="divqat-serve", daemon=True
    )
    thread.start()
    try:
        yield _url(listening)
    finally:
        server.should_exit = True
        thread.join(_STOP_SECONDS + 5)
        if thread.is_alive():
            raise InputError("the server did not stop: its victim is still answering.")
        service.close()

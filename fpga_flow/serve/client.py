"""The client: a served victim for the attacks; it needs only the standard library."""

import http.client
import json
import time
import uuid
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

import numpy as np
from pydantic import BeforeValidator, Field, TypeAdapter

from divqat_brevitas.errors import DivQATError, InputError
from divqat_brevitas.extraction.arrays import Images, Responses, check_images, check_logits
from divqat_brevitas.extraction.oracles import ORACLES
from divqat_brevitas.extraction.victim import BudgetExceededError, Victim
from divqat_brevitas.input_range import InputRange
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.records import reason
from fpga_flow.serve.wire import JSON, NPY, encode

_MOST_ANSWER_BYTES = 2**30
_HEADER_BYTES = 128  # of npy, for four axes


class RestError(DivQATError):
    """A server cannot be reached, refuses, or answers with something else than answers."""


@dataclass(frozen=True)
class RestInfo(ShortRepr):
    """What a server says of itself; see ``GET /info``."""

    # Of an image, such as (C, H, W)
    input_shape: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)]
    # The values that an image may have
    input_range: Annotated[InputRange, BeforeValidator(InputRange.of)]
    classes: int  # how many the victim tells apart
    oracle: str  # what it shows
    oracle_options: dict[str, int]  # of the oracle
    defence: str  # of the answers
    defence_settings: dict[str, Any]  # its numbers
    budget: int  # queries for this client in all
    queries_used: int  # by this client
    remaining: int  # that this client may still ask; fewer than the budget leaves where others ask
    images_per_request: int  # that one request may carry
    body_bytes: int  # of a request

    @property
    def batch(self) -> int:
        """Images that fit into one request."""
        size = 4 * int(np.prod(self.input_shape))
        return max(1, min(self.images_per_request, (self.body_bytes - _HEADER_BYTES) // size))


_INFO = TypeAdapter(RestInfo)


class RestClient:
    """Asks a server. A request that got no answer is sent again under the same key.

    The server counts a key once, so a retry after a lost answer costs nothing.

    Args:
        url: of the server, such as "http://127.0.0.1:8080".
        token: where the server asks for one.
        timeout: seconds without a byte from the server; an RTL simulation may need minutes.
        retries: further tries where the connection fails or the server is busy.
        pause: seconds before the first of them, doubled each time.

    Raises:
        InputError: no http or https URL.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 300.0,
        retries: int = 4,
        pause: float = 0.2,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{url!r} is no URL of a server: write http://127.0.0.1:8080.")
        self.url = url.rstrip("/")
        self.timeout, self.retries, self.pause = timeout, retries, pause
        self._parts = parts
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def info(self) -> RestInfo:
        """What is served.

        Raises:
            RestError: the server cannot be reached, or says something else.
        """
        said = self._exchange("GET", "/info", None, {})
        try:
            found = _INFO.validate_python(said | said["limits"])
        except (KeyError, TypeError, ValueError, InputError) as e:
            raise RestError(
                f"{self.url} is no server of `divqat serve`: {reason(e)} in /info."
            ) from e
        if found.oracle not in ORACLES:
            raise RestError(
                f"{self.url} has the oracle {found.oracle!r}, which this version does not know."
            )
        return found

    def ask(
        self, images: Images, key: str | None = None, declared: InputRange | None = None
    ) -> Responses:
        """Answers, float32 (N, classes), to images, float32 (N, C, H, W) in [0, 1], in one request.

        Args:
            images: asked.
            key: under which the server remembers the answers; None takes a new one.
            declared: the input range that the server declares; None is images in [0, 1].

        Raises:
            BudgetExceededError: the server has fewer queries left; nothing was counted.
            RestError: the server cannot be reached, or refuses.
        """
        headers = {"Content-Type": NPY, "Idempotency-Key": key or uuid.uuid4().hex}
        body = encode(check_images(images, declared=declared))
        said = self._exchange("POST", "/query", body, headers)
        try:
            answers = np.asarray(said["answers"], np.float32)
        except (KeyError, TypeError, ValueError) as e:
            raise RestError(f"{self.url} did not answer with answers: {e!r}.") from e
        return check_logits(answers, len(images), f"the answers of {self.url}")

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> dict[str, Any]:
        pause = self.pause
        for tries_left in range(self.retries, -1, -1):
            try:
                status, content = self._once(method, path, body, headers)
            except (OSError, http.client.HTTPException) as e:
                if not tries_left:
                    raise RestError(
                        f"{self.url} cannot be reached ({e!r}). Is `divqat serve` running there? "
                        "Whether the last query was counted is in its /info."
                    ) from e
            else:
                if status == 200:
                    return self._document(content)
                if status != 503 or not tries_left:
                    raise self._refused(status, content)
            time.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable: the last try returns or raises")

    def _once(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        parts = self._parts
        https = parts.scheme == "https"
        kind = http.client.HTTPSConnection if https else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=self.timeout)
        try:
            connection.request(method, parts.path.rstrip("/") + path, body, self._headers | headers)
            response = connection.getresponse()
            content = response.read(_MOST_ANSWER_BYTES)
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
            return response.status, content
        finally:
            connection.close()

    def _document(self, content: bytes) -> dict[str, Any]:
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as e:
            raise RestError(f"{self.url} did not answer with {JSON}: {e}.") from e
        if not isinstance(document, dict):
            raise RestError(f"{self.url} did not answer with a JSON object.")
        return document

    def _refused(self, status: int, content: bytes) -> DivQATError:
        try:
            error = json.loads(content)["error"]
            code, message = str(error["code"]), str(error["message"])
        except (ValueError, KeyError, TypeError, RecursionError):
            code, message = "unknown", content[:200].decode("utf-8", "replace")
        if code == "budget-exceeded":
            return BudgetExceededError(f"{self.url}: {message}")
        return RestError(f"{self.url} refused ({status}, {code}): {message}")


class RestPredictor(RestClient):
    """A server whose oracle is "logits" as a predictor, for :class:`Victim`, metrics and tests.

    Takes what :class:`RestClient` takes. Every image is a query at the server.

    Raises:
        InputError: no URL, or a server that does not show logits.
        RestError: it cannot be reached.
    """

    def __init__(self, url: str, token: str | None = None, **options: Any) -> None:
        super().__init__(url, token, **options)
        self._info = self.info()
        self.input_range = self._info.input_range
        if self._info.oracle != "logits":
            raise InputError(
                f"{url} shows {self._info.oracle!r}, not logits: attack it as RestVictim(url)."
            )

    def predict(self, images: Images) -> Responses:
        """Logits, float32 (N, classes), of float32 images (N, C, H, W) in [0, 1]."""
        batch, declared = self._info.batch, self.input_range
        starts = range(0, len(images), batch)
        return np.concatenate([self.ask(images[i : i + batch], declared=declared) for i in starts])


class RestVictim(Victim):
    """A server as a victim: every attack of ``divqat_brevitas.extraction`` runs on it.

    Its ledger is kept here as well, a row a request that was answered. Where others share the
    server's budget, an error may come before the budget here is spent.

    Args:
        url: of the server.
        token: where the server asks for one.
        budget: queries to spend at most; None is what the server has left for this client.
        **options: ``timeout``, ``retries``, ``pause`` of :class:`RestClient`.

    Raises:
        InputError: no URL, or a budget that is no whole number.
        RestError: the server cannot be reached.

    Example:
        >>> victim = RestVictim("http://127.0.0.1:8080", budget=1000)  # doctest: +SKIP
        >>> victim.oracle, victim.remaining  # doctest: +SKIP
        ('soft', 1000)
    """

    def __init__(
        self, url: str, token: str | None = None, budget: int | None = None, **options: Any
    ) -> None:
        self.client = RestClient(url, token, **options)
        self.info = self.client.info()
        left = self.info.remaining if budget is None else budget
        super().__init__(_Remote(self.client, self.info.input_range), self.info.oracle, left)
        self.options = self.info.oracle_options
        self.defence = self.info.defence
        self.defence_settings = self.info.defence_settings

    def query(self, images: Images) -> Responses:
        """The server's answers, float32 (N, classes), to images, float32 NCHW in [0, 1].

        More images than one request may carry go in several, each with its own ledger row.

        Raises:
            BudgetExceededError: fewer than N queries are left here: nothing was asked. Or the
                server has fewer: what it answered before is counted, here and there.
            InputError: bad images.
            RestError: the server cannot be reached any more, or refuses.
        """
        images = check_images(images, "queried images", self.input_range)
        batch = self.info.batch
        if len(images) <= batch or len(images) > self.remaining:
            return super().query(images)
        ask, starts = super().query, range(0, len(images), batch)
        return np.concatenate([ask(images[i : i + batch]) for i in starts])

    def _fresh(self, images: Images) -> Responses:
        """The oracle and the defence have been at work at the server."""
        return self.client.ask(images, declared=self.input_range)


class _Remote:
    """The place of a predictor; logits stay at the server."""

    def __init__(self, client: RestClient, input_range: InputRange) -> None:
        self._client = client
        self.input_range = input_range

    def predict(self, images: Images) -> Responses:
        raise InputError(f"{self._client.url} returns only responses of its oracle: use query().")

"""What a server grants: sizes, times, who may ask, and on which address it listens."""

import hmac
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_toml
from fpga_flow.records import reason


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, one connection and all together may take.

    Attributes:
        images_per_request: images in one query.
        body_bytes: of a request; a larger one is refused before it is in memory.
        body_seconds: for the whole body.
        idle_seconds: a kept-alive connection without a request is closed.
        queue_seconds: waiting for a place before "busy" (503).
        concurrent: requests whose bodies are in memory at once.
        connections: open at once; more are answered 503.

    Raises:
        InputError: a limit that is not above 0.
    """

    images_per_request: int = 1024
    body_bytes: int = 16 * 2**20
    body_seconds: float = 30.0
    idle_seconds: float = 30.0
    queue_seconds: float = 60.0
    concurrent: int = 8
    connections: int = 512

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise InputError(f"the server's {field.name} must be above 0, but is {value!r}.")


def _plain(token: str) -> str:
    if not (token.isprintable() and token.isascii() and token == token.strip()):
        raise ValueError("it must be printable ASCII without outer spaces")
    return token


@dataclass(frozen=True)
class Client:
    """Who may ask.

    Attributes:
        name: what the ledger calls it.
        token: sent as ``Authorization: Bearer TOKEN``: what such a header can carry, and long
            enough not to be guessed by chance.
        budget: queries; None is whatever the server's budget leaves.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    token: Annotated[str, Field(min_length=16), AfterValidator(_plain)]
    budget: Annotated[int, Field(ge=0, strict=True)] | None = None


def read_clients(path: Path) -> list[Client]:
    r"""Clients from a TOML file: a table a client, with ``token`` and, if limited, ``budget``.

    Raises:
        InputError: no such file, not TOML, an unknown key, or tokens that are too short or equal.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "clients.toml"
        >>> _ = file.write_text('[red-team]\ntoken = "correct horse battery"\nbudget = 100\n')
        >>> read_clients(file)[0].budget
        100
    """
    clients = []
    for name, table in read_toml(path, "clients' file").items():
        try:
            clients.append(TypeAdapter(Client).validate_python({**table, "name": name}))
        except (TypeError, ValidationError) as e:
            raise InputError(
                f"{path}: {name!r} must be a table with a token of at least 16 printable "
                "characters and, if the client has a budget of its own, budget = N; nothing "
                f"else ({reason(e)}). For a token: python -c "
                '"import secrets; print(secrets.token_urlsafe())"'
            ) from e
    if not clients:
        raise InputError(f"{path} names no client. Leave out --clients to serve without tokens.")
    if len({client.token for client in clients}) < len(clients):
        raise InputError(f"{path}: two clients have the same token.")
    return clients


def find_client(clients: Sequence[Client], authorization: str) -> Client | None:
    """The client whose token an ``Authorization`` header carries; compared in constant time."""
    scheme, _, token = authorization.partition(" ")
    given = token.strip().encode()
    # Every token is compared, so that the time does not depend on which one it is.
    same = [client for client in clients if hmac.compare_digest(client.token.encode(), given)]
    return same[0] if same and scheme.lower() == "bearer" else None


def is_loopback(host: str) -> bool:
    """Whether every address of ``host`` is this machine's own.

    Raises:
        InputError: a name that cannot be resolved.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as e:
        raise InputError(f"cannot resolve the host {host!r}: {e}. Use an address.") from e
    addresses = [str(row[4][0]).partition("%")[0] for row in found]
    return all(ipaddress.ip_address(address).is_loopback for address in addresses)


def names_loopback(host_header: str) -> bool:
    """Whether a ``Host`` header names this machine.

    A page in a browser can make its own domain point here (DNS rebinding); it cannot change
    what its requests call the host.

    Example:
        >>> names_loopback("127.0.0.1:8080"), names_loopback("[::1]"), names_loopback("a.example")
        (True, True, False)
    """
    try:
        name = urlsplit(f"//{host_header}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_reach(host: str, public: bool) -> bool:
    """Whether ``host`` is only this machine.

    Raises:
        InputError: it is not, and that is not said to be meant.
    """
    local = is_loopback(host)
    if not local and not public:
        raise InputError(
            f"{host} can be reached from other machines, and this server has no TLS. Use "
            "--host 127.0.0.1 and a tunnel (ssh -L), or add --public if that is meant."
        )
    return local


def bind(host: str, port: int, public: bool) -> socket.socket:
    """A listening socket.

    Raises:
        InputError: an address of other machines' reach without ``public``, or one that cannot
            be taken.
    """
    check_reach(host, public)
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as e:
        listening.close()
        raise InputError(
            f"cannot listen on {host}:{port}: {e.strerror}. Choose another --port (0 takes a "
            "free one)."
        ) from e
    return listening

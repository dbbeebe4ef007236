"""A victim behind HTTP, and the client of an attacker.

``divqat serve`` starts a server (extra ``serve``: starlette, uvicorn); :class:`RestVictim` attacks
one with only the standard library. The names are imported when first used.

Example:
    >>> from fpga_flow.serve import RestVictim  # doctest: +SKIP
    >>> victim = RestVictim("http://127.0.0.1:8080")  # doctest: +SKIP
    >>> result = KnockoffNets(seed=0).run(victim, pool)  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fpga_flow.serve.client import RestClient, RestError, RestPredictor, RestVictim
    from fpga_flow.serve.guard import Guard, RejectWatch
    from fpga_flow.serve.ledger import QueryLedger
    from fpga_flow.serve.limits import Client, Limits
    from fpga_flow.serve.server import Service, running, serve

_NAMES = {
    "client": ("RestClient", "RestError", "RestPredictor", "RestVictim"),
    "guard": ("Guard", "RejectWatch"),
    "ledger": ("QueryLedger",),
    "limits": ("Client", "Limits"),
    "server": ("Service", "running", "serve"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "Client", "Guard", "Limits", "QueryLedger", "RejectWatch", "RestClient", "RestError",
    "RestPredictor", "RestVictim", "Service", "running", "serve",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

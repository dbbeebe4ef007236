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
    from fpga_flow.serve.ledger import QueryLedger
    from fpga_flow.serve.limits import Client, Limits
    from fpga_flow.serve.server import Service, running, serve

_HOMES = {
    "Client": "fpga_flow.serve.limits",
    "Limits": "fpga_flow.serve.limits",
    "QueryLedger": "fpga_flow.serve.ledger",
    "RestClient": "fpga_flow.serve.client",
    "RestError": "fpga_flow.serve.client",
    "RestPredictor": "fpga_flow.serve.client",
    "RestVictim": "fpga_flow.serve.client",
    "Service": "fpga_flow.serve.server",
    "running": "fpga_flow.serve.server",
    "serve": "fpga_flow.serve.server",
}

__all__ = [
    "Client",
    "Limits",
    "QueryLedger",
    "RestClient",
    "RestError",
    "RestPredictor",
    "RestVictim",
    "Service",
    "running",
    "serve",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

"""Import finn-plus' builder, with Vivado's simulator or without.

finn-plus 1.6.1 resolves ``from finn.xsi import SimEngine`` while it is imported, and that asks
Vivado's simulator to be there. Binding finn.xsi's lazy names first makes the import, and every
step that simulates no RTL, work. No installed file is changed.

torch, which takes a third of the import and of which FINN needs nothing but the execution of layer
norms, is imported at its first use.

Runs in the worker process only: FINN reads the environment and writes to the home directory.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class _NoSimulator:
    """Stands for every name of Vivado's simulator interface."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("RTL simulation by FINN needs Vivado's simulator (xsim).")


class _Later(ModuleType):
    """Stands for a module that is imported when one of its names is asked for."""

    def __getattr__(self, name: str) -> Any:
        _forget()
        return getattr(import_module(self.__name__), name)


def _forget() -> None:
    for name in [name for name, module in sys.modules.items() if isinstance(module, _Later)]:
        del sys.modules[name]


@contextmanager
def _torch_later() -> Iterator[None]:
    """In the block, modules that import torch get one that is imported at its first use."""
    spec = None if "torch" in sys.modules else find_spec("torch")
    if spec is not None:
        torch, nn, functional = map(_Later, ("torch", "torch.nn", "torch.nn.functional"))
        vars(torch).update(nn=nn, __spec__=spec)
        vars(nn).update(functional=functional, __spec__=ModuleSpec(nn.__name__, None))
        sys.modules.update({module.__name__: module for module in (torch, nn, functional)})
    try:
        yield
    finally:
        _forget()


def import_finn() -> None:
    """Import ``finn.builder.build_dataflow``; to be called once a process."""
    # FINN names the tool version in its reports by this path; it must be set to anything.
    os.environ.setdefault("XILINX_VIVADO", "/no-vivado")
    import finn.util.settings

    finn.util.settings.initialize_dummy_settings()
    import finn.xsi

    for name in finn.xsi._LAZY_NAMES:
        setattr(finn.xsi, name, _NoSimulator)
    with _torch_later():
        import_module("finn.custom_op.fpgadataflow")
        import_module("onnx_passes.passes.runtime")
    import_module("finn.builder.build_dataflow")


def import_finn_with_simulator() -> str | None:
    """As ``import_finn``, but with Vivado's simulator where it can be had.

    FINN builds its interface to the simulator at the first call, with a C++ compiler.

    Returns:
        None, or why there is no simulator; FINN is imported without it then.
    """
    import finn.util.settings
    from finn.util.exception import FINNUserError

    finn.util.settings.initialize_dummy_settings()
    import finn.xsi

    try:
        finn.xsi.ensure_available()
    except (FINNUserError, OSError, ValueError) as e:
        print(f"No RTL simulation by FINN: {e}", flush=True)
        import_finn()
        return str(e)
    return None

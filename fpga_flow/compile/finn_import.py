"""Import finn-plus' builder, with Vivado's simulator or without.

finn-plus 1.6.1 resolves ``from finn.xsi import SimEngine`` while it is imported, and that asks
Vivado's simulator to be there. Binding finn.xsi's lazy names first makes the import, and every
step that simulates no RTL, work. No installed file is changed.

Runs in the worker process only: FINN reads the environment and writes to the home directory.
"""

import os
from typing import Any


class _NoSimulator:
    """Stands for every name of Vivado's simulator interface."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("RTL simulation by FINN needs Vivado's simulator (xsim).")


def import_finn() -> None:
    """Make ``import finn.builder`` work; to be called before it, once a process."""
    # FINN names the tool version in its reports by this path; it must be set to anything.
    os.environ.setdefault("XILINX_VIVADO", "/no-vivado")
    import finn.util.settings

    finn.util.settings.initialize_dummy_settings()
    import finn.xsi

    for name in finn.xsi._LAZY_NAMES:
        setattr(finn.xsi, name, _NoSimulator)


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

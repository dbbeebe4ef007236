"""Fixtures and markers for projects that test their own networks. Loaded by pytest by itself.

Nothing but pytest is imported until a test asks for something here, so that other projects'
test runs stay as quick as they were. Off: ``-p no:divqat``.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fpga_flow.engines import Engine
    from fpga_flow.pipeline.rundir import RunDirectory

NEEDS = {
    "needs_verilator": ("verilator", "c++-compiler"),
    "needs_finn": ("finn-plus",),
    "needs_yosys": ("yosys",),
    "needs_pyosys": ("pyosys",),
    "needs_nextpnr": ("nextpnr-ecp5",),
    "needs_vivado": ("vivado",),
}
"""A marker, and what must be there as ``divqat doctor`` calls it."""

_FOUND = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--divqat-run DIR``, or ``divqat_run = DIR`` in the project's settings."""
    said = "Run directory that the fixture divqat_run gives."
    parser.getgroup("divqat").addoption("--divqat-run", metavar="DIR", help=said)
    parser.addini("divqat_run", said)


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known, for ``--strict-markers`` and ``--markers``."""
    for marker, tools in NEEDS.items():
        config.addinivalue_line(
            "markers", f"{marker}: skipped where {' or '.join(tools)} is missing (divqat doctor)"
        )
    config.stash[_FOUND] = {}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose tools are not here, with the reason."""
    for mark in item.iter_markers():
        for tool in NEEDS.get(mark.name, ()):
            lacks = _lacks(tool, item.config.stash[_FOUND])
            if lacks:
                pytest.skip(f"{mark.name}: {lacks}")


def _lacks(tool: str, found: dict[str, str]) -> str:
    """Why a tool cannot be used; empty where it can. Looked for once: FINN takes seconds."""
    if tool not in found:
        from fpga_flow.doctor import look_for

        finding = look_for(tool)
        bad = finding.status != "ok"
        found[tool] = f"{tool} is {finding.status} ({finding.get})" if bad else ""
    return found[tool]


@pytest.fixture
def assert_bit_exact() -> Callable[..., None]:
    """``assert_bit_exact(model, engine, images=...)``: see :mod:`fpga_flow.testing`."""
    from fpga_flow.testing import assert_bit_exact

    return assert_bit_exact


@pytest.fixture
def assert_extraction_at_most() -> Callable[..., list[float]]:
    """``assert_extraction_at_most(victim, bound, ...)``: see :mod:`fpga_flow.testing`."""
    from fpga_flow.testing import assert_extraction_at_most

    return assert_extraction_at_most


@pytest.fixture(scope="session")
def divqat_engine() -> "Iterator[Callable[..., Engine]]":
    """``divqat_engine(path, engine="integer")``: an engine, loaded once a session and closed."""
    loaded: dict[tuple[Path, str], Any] = {}
    with ExitStack() as stack:

        def load(path: Path | str, engine: str = "integer") -> Any:
            from fpga_flow.engines import load_engine

            key = (Path(path).resolve(), engine)
            if key not in loaded:
                loaded[key] = load_engine(path, engine)
                if hasattr(loaded[key], "close"):
                    stack.callback(loaded[key].close)
            return loaded[key]

        yield load


@pytest.fixture(scope="session")
def divqat_run(pytestconfig: pytest.Config) -> "RunDirectory":
    """The run directory of ``--divqat-run`` or of the setting ``divqat_run``.

    ``divqat_run.path / "export/qat.onnx"`` is a victim's file, ``divqat_run.config()`` its
    settings. Without the option, tests that use it are skipped.
    """
    from fpga_flow.pipeline.rundir import RunDirectory

    given = pytestconfig.getoption("--divqat-run")
    written = pytestconfig.getini("divqat_run")
    if given:
        return RunDirectory.existing(Path(pytestconfig.invocation_params.dir, given))
    if written:
        return RunDirectory.existing(pytestconfig.rootpath / str(written))
    pytest.skip("no run directory: pytest --divqat-run DIR, or divqat_run = DIR in the settings")

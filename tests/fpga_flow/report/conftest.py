from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import build

from fpga_flow.report import build_report
from fpga_flow.report.charts import Chart


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a synthetic run directory with the given properties."""

    def make(**properties: Any) -> Path:
        return build(tmp_path / f"run-{len(list(tmp_path.iterdir()))}", **properties)

    return make


@pytest.fixture
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page without its charts, which take a second or two; its numbers and words are the same."""
    monkeypatch.setattr(Chart, "svg", "")


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three seeds with its report, to be read only."""
    run = build(tmp_path_factory.mktemp("reported") / "run", seeds=3)
    build_report(run)
    return run

"""One thread a process, for the tests and for all that they start.

Networks of this size gain nothing from a second thread, and on a busy machine the threads wait for
each other: some tests take a hundred times as long.
"""

import os
from collections.abc import Iterator

# Before anything imports torch or numpy, which read it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# No deadline: a test never depends on how busy the machine is.
settings.register_profile("divqat", deadline=None)
settings.load_profile("divqat")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled simulations and checked files, kept for the session and all of its processes."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIVQAT_CACHE", str(folder / "cache"))
        yield


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Layers draw their weights from torch's global state: the same in every test."""
    import torch

    torch.manual_seed(0)


# Fixtures that take seconds: a build with FINN, a whole run, the site.
SLOW = {
    "cnn_build",
    "users_build",
    "fast_build",
    "stopped_build",
    "finished_build",
    "finished_run",
    "site",
}


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """A test that asks for such a fixture is slow."""
    for item in items:
        if SLOW.intersection(item.fixturenames):
            item.add_marker(pytest.mark.slow)

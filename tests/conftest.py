"""One thread a process, for the tests and for all that they start.

Networks of this size gain nothing from a second thread, and on a busy machine the threads wait for
each other: some tests take a hundred times as long.
"""

import os

# Before anything imports torch or numpy, which read it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# No deadline: a test never depends on how busy the machine is.
settings.register_profile("divqat", deadline=None)
settings.load_profile("divqat")

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

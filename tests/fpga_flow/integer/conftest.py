"""What the gate of these tests remembers is kept in one folder a session, never in the user's."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def gate_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    patch = pytest.MonkeyPatch()
    patch.setenv("DIVQAT_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()

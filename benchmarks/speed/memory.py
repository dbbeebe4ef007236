"""Memory of training steps: each contestant in a process of its own, which says what it needed.

The steps' own memory is the peak of the resident set less what was resident before the first
step: interpreter, libraries, weights and data.
"""

import json
import subprocess
import sys
from typing import Any

from benchmarks import child_environment
from divqat_brevitas.errors import CheckFailedError

_STEPS = 3
_TIMEOUT = 1800


def memory(name: str, model: str, precision: str, size: int, threads: int) -> dict[str, int] | None:
    """Bytes of a contestant's training steps; None where the system does not tell.

    Args:
        name: of ``benchmarks.speed.contestants``.
        model: network, as there.
        precision: as there.
        size: images a batch.
        threads: of computation.

    Returns:
        ``{"start": resident before the first step, "peak": the most, "steps": the difference}``.

    Raises:
        CheckFailedError: the process failed, with the end of what it said.

    Example:
        >>> memory("float", "cifar-cnn", "float32", 8, 1)["steps"] > 0  # doctest: +SKIP
        True
    """
    if not sys.platform.startswith("linux"):
        return None
    arguments = [name, model, precision, str(size), str(threads)]
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", __name__, *arguments],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        env=child_environment(),
    )
    if child.returncode != 0:
        raise CheckFailedError(
            f"measuring the memory of {name} failed: {child.stderr.strip()[-500:]}"
        )
    found: dict[str, int] = json.loads(child.stdout.splitlines()[-1])
    return found


def _measure(name: str, model: str, precision: str, size: int, threads: int) -> dict[str, int]:
    import torch

    from benchmarks.speed.contestants import contestants

    torch.set_num_threads(threads)
    contestant = contestants(model, precision, size, (name,))[name]
    start = _kilobytes("VmRSS")
    for _ in range(_STEPS):
        contestant.step()
    peak = _kilobytes("VmHWM")
    return {"start": 1024 * start, "peak": 1024 * peak, "steps": 1024 * (peak - start)}


def _kilobytes(key: str) -> int:
    """A field of this process' status; VmHWM is the peak of the resident set."""
    from pathlib import Path

    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise CheckFailedError(f"/proc/self/status has no {key}.")


def main(arguments: list[str]) -> dict[str, Any]:
    """What the child process does."""
    name, model, precision, size, threads = arguments
    return _measure(name, model, precision, int(size), int(threads))


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))

"""Where the time of a call goes, by operator."""

import os
from collections.abc import Callable
from typing import Any

_TOP = 12


def operators(call: Callable[[], object], top: int = _TOP, calls: int = 1) -> list[dict[str, Any]]:
    """The operators that take most of one call, by the time spent in themselves.

    Args:
        call: run under ``torch.profiler``, on the CPU.
        top: how many operators.
        calls: how often it is run; of each operator the quickest counts, since a profile is of
            time that passed, and other processes take theirs.

    Returns:
        ``{"name", "calls", "seconds", "share"}`` each, the longest first; shares are of all
        operators' time.

    Example:
        >>> import torch
        >>> a = torch.rand(200, 200)
        >>> operators(lambda: a @ a)[0]["name"]
        'aten::mm'
    """
    # Read at the profiler's first start: else each start and stop is a line on stderr.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from torch.profiler import ProfilerActivity, profile

    quickest: dict[str, tuple[float, int]] = {}
    for _ in range(calls):
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            call()
        for event in profiler.key_averages():
            found = event.self_cpu_time_total / 1e6, event.count
            quickest[event.key] = min(found, quickest.get(event.key, found))
    total = sum(seconds for seconds, _ in quickest.values()) or 1.0
    longest = sorted(quickest, key=lambda name: quickest[name], reverse=True)[:top]
    return [
        {
            "name": name,
            "calls": quickest[name][1],
            "seconds": quickest[name][0],
            "share": quickest[name][0] / total,
        }
        for name in longest
    ]

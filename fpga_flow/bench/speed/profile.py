"""Where the time of a call goes, by operator."""

from collections.abc import Callable
from typing import Any

_TOP = 12


def operators(call: Callable[[], object], top: int = _TOP) -> list[dict[str, Any]]:
    """The operators that take most of one call, by the time spent in themselves.

    Args:
        call: run once under ``torch.profiler``, on the CPU.
        top: how many.

    Returns:
        ``{"name", "calls", "seconds", "share"}`` each, the longest first; shares are of all
        operators' time.

    Example:
        >>> import torch
        >>> a = torch.rand(200, 200)
        >>> operators(lambda: a @ a)[0]["name"]
        'aten::mm'
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    events = profiler.key_averages()
    total = sum(event.self_cpu_time_total for event in events) or 1
    longest = sorted(events, key=lambda event: event.self_cpu_time_total, reverse=True)[:top]
    return [
        {
            "name": event.key,
            "calls": event.count,
            "seconds": event.self_cpu_time_total / 1e6,
            "share": event.self_cpu_time_total / total,
        }
        for event in longest
    ]

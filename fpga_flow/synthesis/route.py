"""Placing and routing with nextpnr, and what it reports."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from divqat_brevitas.files import read_json
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.synthesis.cells import OUTSIDE, Layers
from fpga_flow.synthesis.synth import LOGS
from fpga_flow.synthesis.tools import Deadline, ToolFailedError, run_tool
from fpga_flow.targets import OpenTarget

ROUTED = "routed.json"
REPORT = "nextpnr.json"
_USED = re.compile(r"^Info:\s+(\S+):\s*(\d+)/\s*(\d+)", re.MULTILINE)
_FULL = re.compile(r"no BELs? remaining|Unable to (place|find)|failed to place", re.IGNORECASE)


@dataclass(frozen=True)
class Routed(ShortRepr):
    """What nextpnr reports."""

    used: Mapping[str, int]  # kind of cell -> amount
    available: Mapping[str, int]  # kind of cell -> what the device has
    fmax_mhz: float  # of the core's clock domain
    # Clock net -> (reached, asked for) in MHz, where it was missed
    missed: Mapping[str, tuple[float, float]]
    slowest_path: tuple[str, ...]  # layers the slowest path goes through, in order
    seconds: float  # it took


class DoesNotFitError(Exception):  # becomes a NoBitstreamError
    """More cells than the device has: kind -> (needed, available)."""

    def __init__(self, over: Mapping[str, tuple[int, int]]) -> None:
        self.over = over
        super().__init__(str(dict(over)))


def place_and_route(
    work: Path,
    target: OpenTarget,
    *,
    netlist: str,
    freq_mhz: float,
    seed: int,
    clock_names: frozenset[str],
    layers: Layers,
    deadline: Deadline,
) -> Routed:
    """Place and route ``work/netlist``, with the pins in the file that the family's tools name.

    Timing that is missed is reported, not raised.

    Raises:
        DoesNotFitError: the design doesn't fit.
        ToolMissingError: nextpnr is not installed.
        ToolFailedError: it failed otherwise, or time is up.
    """
    tools = target.family.tools
    arguments = [*target.place, "--json", netlist, *tools.place_arguments]
    arguments += ["--report", REPORT, "--freq", f"{freq_mhz:g}"]
    arguments += ["--seed", str(seed), "--timing-allow-fail", "--write", ROUTED]
    log = work / LOGS / f"{tools.place}.log"

    def fits(text: str) -> None:
        over = overflow(text, target)
        if over:
            raise DoesNotFitError(over)

    try:
        seconds = run_tool(tools.place, arguments, work, log, deadline, fits)
    except ToolFailedError as e:
        text = log.read_text(encoding="utf-8", errors="replace")
        if _FULL.search(e.reason) or _FULL.search(text):
            # Less than all of every kind, yet no legal place: nearly full.
            raise DoesNotFitError(_fullest(text, target)) from e
        raise
    return _routed(work, target, clock_names, layers, seconds)


def overflow(log: str, target: OpenTarget) -> dict[str, tuple[int, int]]:
    """What nextpnr's utilisation table says doesn't fit: kind -> (needed, available)."""
    return {kind: row for kind, row in _table(log, target).items() if row[0] > row[1]}


def _table(log: str, target: OpenTarget) -> dict[str, tuple[int, int]]:
    """The log's utilisation table: kind -> (needed, available); empty where there is none."""
    cells = {cell: int(used) for cell, used, _ in _USED.findall(log)}
    return _by_kind(cells, target) if cells else {}


def _by_kind(cells: Mapping[str, int], target: OpenTarget) -> dict[str, tuple[int, int]]:
    """Used cells of nextpnr's kinds as ours: kind -> (needed, available)."""
    used: Counter[str] = Counter()
    for cell, (kind, amount) in target.family.placed.items():
        used[kind] += amount * cells.get(cell, 0)
    return {kind: (n, int(getattr(target.capacity, kind))) for kind, n in used.items()}


def _fullest(log: str, target: OpenTarget) -> dict[str, tuple[int, int]]:
    rows = _table(log, target)
    if not rows:
        return {}
    kind = max(rows, key=lambda kind: rows[kind][0] / max(rows[kind][1], 1))
    return {kind: rows[kind]}


def _routed(
    work: Path, target: OpenTarget, clocks: frozenset[str], layers: Layers, seconds: float
) -> Routed:
    report = read_json(work / REPORT)
    cells = {cell: row["used"] for cell, row in report["utilization"].items()}
    use = _by_kind(cells, target)
    fmax = {net: (clock["achieved"], clock["constraint"]) for net, clock in report["fmax"].items()}
    # A clock on nextpnr's global network, or coming from a pin, has a longer name there.
    stems = {net: net.removeprefix("$glbnet$").removesuffix("$TRELLIS_IO_IN") for net in fmax}
    core = [net for net, stem in stems.items() if stem in clocks]
    reached = min((fmax[net][0] for net in core or fmax), default=0.0)
    return Routed(
        used={kind: used for kind, (used, _) in use.items()},
        available={kind: available for kind, (_, available) in use.items()},
        fmax_mhz=reached,
        missed={net: pair for net, pair in fmax.items() if pair[0] < pair[1]},
        slowest_path=_path(report["critical_paths"], core or list(fmax), layers),
        seconds=seconds,
    )


def _path(paths: list[dict[str, object]], clocks: list[str], layers: Layers) -> tuple[str, ...]:
    """Layers along the slowest path within the core's clock, each once."""
    for path in paths:
        ends = {str(path["from"]).split(" ")[-1], str(path["to"]).split(" ")[-1]}
        if not ends <= set(clocks):
            continue
        hops = path["path"]
        assert isinstance(hops, list)
        names = [layers.of(str(hop["to"]["cell"])) for hop in hops]
        return tuple(dict.fromkeys(name for name in names if name != OUTSIDE)) or (OUTSIDE,)
    return ()

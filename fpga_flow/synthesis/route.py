"""Placing and routing with nextpnr, and what it reports."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from divqat_brevitas.files import read_json
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.synthesis.cells import OUTSIDE, Layers
from fpga_flow.synthesis.synth import LOGS
from fpga_flow.synthesis.tools import Deadline, ToolFailedError, run_tool
from fpga_flow.targets import OpenTarget

PINS = "pins.lpf"
ROUTED = "routed.json"
REPORT = "nextpnr.json"
# nextpnr's cell -> our name of it
KINDS = {"TRELLIS_COMB": "lut", "TRELLIS_FF": "ff", "DP16KD": "bram", "MULT18X18D": "dsp"}
_USED = re.compile(r"(TRELLIS_COMB|TRELLIS_FF|DP16KD|MULT18X18D):\s*(\d+)/\s*(\d+)")
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
    config: str,
    freq_mhz: float,
    seed: int,
    clock_names: frozenset[str],
    layers: Layers,
    deadline: Deadline,
) -> Routed:
    """Place and route ``work/netlist`` into ``work/config``, with the pins of ``work/pins.lpf``.

    Timing that is missed is reported, not raised.

    Raises:
        DoesNotFitError: the design doesn't fit.
        ToolMissingError: nextpnr is not installed.
        ToolFailedError: it failed otherwise, or time is up.
    """
    arguments = [target.nextpnr, "--package", target.package, "--speed", str(target.speed)]
    arguments += ["--json", netlist, "--lpf", PINS, "--lpf-allow-unconstrained"]
    arguments += ["--textcfg", config, "--report", REPORT, "--freq", f"{freq_mhz:g}"]
    arguments += ["--seed", str(seed), "--timing-allow-fail", "--write", ROUTED]
    log = work / LOGS / "nextpnr-ecp5.log"

    def fits(text: str) -> None:
        over = overflow(text, target)
        if over:
            raise DoesNotFitError(over)

    try:
        seconds = run_tool("nextpnr-ecp5", arguments, work, log, deadline, fits)
    except ToolFailedError as e:
        text = log.read_text(encoding="utf-8", errors="replace")
        if _FULL.search(e.reason) or _FULL.search(text):
            # Less than all of every kind, yet no legal place: nearly full.
            raise DoesNotFitError(_fullest(text)) from e
        raise
    return _routed(work, clock_names, layers, seconds)


def overflow(log: str, target: OpenTarget) -> dict[str, tuple[int, int]]:
    """What nextpnr's utilisation table says doesn't fit: kind -> (needed, available)."""
    found: dict[str, tuple[int, int]] = {}
    for cell, used, available in _USED.findall(log):
        kind = KINDS[cell]
        limit = min(int(available), int(getattr(target.capacity, kind)))
        if int(used) > limit:
            found[kind] = (int(used), limit)
    return found


def _fullest(log: str) -> dict[str, tuple[int, int]]:
    rows = [(KINDS[cell], int(used), int(of)) for cell, used, of in _USED.findall(log)]
    if not rows:
        return {}
    kind, used, available = max(rows, key=lambda row: row[1] / max(row[2], 1))
    return {kind: (used, available)}


def _routed(work: Path, clocks: frozenset[str], layers: Layers, seconds: float) -> Routed:
    report = read_json(work / REPORT)
    use = {kind: report["utilization"][cell] for cell, kind in KINDS.items()}
    fmax = {net: (clock["achieved"], clock["constraint"]) for net, clock in report["fmax"].items()}
    # A clock on nextpnr's global network, or coming from a pin, has a longer name there.
    stems = {net: net.removeprefix("$glbnet$").removesuffix("$TRELLIS_IO_IN") for net in fmax}
    core = [net for net, stem in stems.items() if stem in clocks]
    reached = min((fmax[net][0] for net in core or fmax), default=0.0)
    return Routed(
        used={kind: row["used"] for kind, row in use.items()},
        available={kind: row["available"] for kind, row in use.items()},
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

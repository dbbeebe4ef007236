"""When there is no bitstream: which layer is to blame, and what would help."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from divqat_brevitas.errors import CheckFailedError
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.synthesis.cells import OUTSIDE, LayerCells
from fpga_flow.targets import OpenTarget

_UNITS = {"lut": "logic cells", "ff": "flip-flops", "bram": "block RAMs", "dsp": "multipliers"}


@dataclass(frozen=True)
class Shortfall(ShortRepr):
    """Why a design is no bitstream: what a folding would have to change.

    Attributes:
        over: kind of cell (lut, ff, bram, dsp) -> (needed, available); empty where it fits.
        fmax_mhz: reached; None where it didn't fit.
        clock_mhz: asked for.
        largest: the layer that takes most of the resource that is short.
        slowest_path: layers the slowest path goes through, in order; empty where it didn't fit.
        layers: the cells of each.
    """

    over: Mapping[str, tuple[int, int]]
    fmax_mhz: float | None
    clock_mhz: float | None
    largest: str
    slowest_path: tuple[str, ...]
    layers: tuple[LayerCells, ...]


class NoBitstreamError(CheckFailedError):
    """The design doesn't fit the device, or misses the clock asked for (exit code 1)."""

    def __init__(self, message: str, shortfall: Shortfall, folder: Path) -> None:
        self.shortfall = shortfall
        self.folder = folder
        super().__init__(message)


Advice = Callable[[Shortfall], str | None]


def largest_layer(layers: Sequence[LayerCells], over: Mapping[str, tuple[int, int]]) -> str:
    """The layer with most of the resource that is shortest; of LUTs where none is short."""
    kind = max(over, key=lambda k: over[k][0] / max(over[k][1], 1), default="lut")
    named = [layer for layer in layers if layer.name != OUTSIDE]
    if not named:
        return OUTSIDE
    return max(named, key=lambda layer: int(getattr(layer.cells, kind))).name


def no_bitstream(
    target: OpenTarget, short: Shortfall, advice: Advice | None, folder: Path
) -> NoBitstreamError:
    """The error for a shortfall, with what helps; ``folder`` keeps what was made."""
    largest = next((layer for layer in short.layers if layer.name == short.largest), None)
    if short.over:
        lacks = ", ".join(
            f"{needed:,} {_UNITS[kind]} of {available:,} ({100 * needed / max(available, 1):.0f} %)"
            for kind, (needed, available) in short.over.items()
        )
        said = f"The design doesn't fit {target.name}: it needs {lacks}."
        remedy = "Fold it more (a lower PE or SIMD there), or take a larger device."
    else:
        fmax, clock = short.fmax_mhz or 0.0, short.clock_mhz or 0.0
        said = f"The design reaches {fmax:.1f} MHz on {target.name}, and {clock:g} MHz were asked."
        if short.slowest_path:
            said += f" The slowest path goes through {' -> '.join(short.slowest_path)}."
        remedy = "Ask for a lower clock, fold that layer more, or try another seed."
    if largest is not None:
        cells = largest.cells
        said += (
            f" The largest layer is {largest.name}: {cells.lut:,} LUTs, {cells.ff:,} flip-flops, "
            f"{cells.bram} block RAMs."
        )
    helps = advice(short) if advice is not None else None
    return NoBitstreamError(
        f"{said} {helps or remedy} What was made is in {folder}.", short, folder
    )

"""How deep FIFOs have to be: found by simulating the design with one depth after another."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.engines.rtl import timing
from fpga_flow.engines.simulation import Answer, Simulation, ports
from fpga_flow.engines.verilator import verilate
from fpga_flow.rtl.design import Design, Node
from fpga_flow.rtl.restitch import restitch

_FIFO = "StreamingFIFO"
_LIMITED = Path(__file__).parent / "sv" / "fifo_limited.sv"
_BITS = 12  # of the deepest ring's address


@dataclass(frozen=True)
class FifoSizing(ShortRepr):
    """Depths found for the FIFOs of a design.

    Attributes:
        depths: by FIFO; 0: none is needed there. As ``DesignSettings.fifo_depths`` takes them.
        interval_cycles: initiation interval with these depths.
        unlimited_cycles: with FIFOs that never fill.
        bits: of storage in all FIFOs.
        simulations: how often the design was simulated.
    """

    depths: Mapping[str, int]
    interval_cycles: float
    unlimited_cycles: float
    bits: int
    simulations: int


def size_fifos(
    design: Design,
    *,
    slack: float = 0.005,
    images: int = 6,
    smallest: int = 2,
    deepest: int = 256,
) -> FifoSizing:
    """Find small FIFOs that keep the design's speed.

    One model with FIFOs whose depth is asked for at reset is compiled; each trial takes a
    fraction of a second. From the widest FIFO on, each gets the least depth (``smallest``, or a
    power of two) with which the interval stays. Greedy: not always the least possible sum.
    Control does not depend on the images, so zeros are simulated.

    Args:
        design: of style "portable".
        slack: fraction by which the initiation interval may exceed that of the deepest FIFOs.
        images: simulated in a trial, at least 4: the interval is that of the second half.
        smallest: 2, or 0 to try wires in place of FIFOs (less logic, longer paths).
        deepest: a power of two from 2 to 4096. Deeper ones cost block RAM by the dozen for the
            last per cents of speed; ``unlimited_cycles`` is without a bound. FIFOs of shortcuts,
            which have to hold rows of a map, may be deeper.

    Returns:
        depths and intervals. ``restitch(design, folder, fifo_depths=sizing.depths)`` takes them.

    Raises:
        InputError: a design of another style, or values out of range.
        CheckFailedError: the design hangs even with unlimited FIFOs.
        ToolMissingError: Verilator or a C++ compiler is not installed.

    Example:
        >>> sizing = size_fifos(design)  # doctest: +SKIP
        >>> sizing.depths["input_fifo"]  # doctest: +SKIP
        2
    """
    if design.style != "portable" or not any(_is_ours(name) for name in design.sources):
        raise InputError(
            "FIFO sizing replaces the module fifo of portable designs; this one is of style "
            f"{design.style!r}. Size a portable design of the same folding and take its depths."
        )
    if images < 4 or smallest not in (0, 2) or slack < 0:
        raise InputError("size_fifos needs images >= 4, smallest 0 or 2, and slack >= 0.")
    if deepest not in [2**k for k in range(1, _BITS + 1)]:
        raise InputError(f"deepest must be a power of two from 2 to {2**_BITS}, not {deepest!r}.")
    with tempfile.TemporaryDirectory(prefix="divqat-fifos-") as folder:
        # Every place that can have a FIFO gets one.
        full = restitch(design, Path(folder) / "design", fifo_depths=2)
        simulation = Simulation(full, _compiled(full))
        try:
            return _Search(full, simulation, images, smallest, deepest).run(slack)
        finally:
            simulation.close()


def _compiled(design: Design) -> Path:
    """The design with FIFOs of any depth, and taps that tell how full they get."""
    fifos = _fifos(design)
    named = " ".join(f'FIFO({k}, "{node.name}")' for k, node in enumerate(fifos))
    return verilate(
        design.folder,
        [str(_LIMITED) if _is_ours(name) else name for name in design.sources],
        design.top,
        defines=("DIVQAT_TAPS", f"DIVQAT_FIFO_BITS={_BITS}"),
        headers={"ports.h": ports(design.nodes) + f"#define EVERY_FIFO {named}\n"},
    )


def _is_ours(name: str) -> bool:
    return Path(name).name == "fifo.sv"


def _fifos(design: Design) -> list[Node]:
    return [node for node in design.nodes if node.op == _FIFO]


def _candidates(fifo: Node, smallest: int, deepest: int) -> list[int]:
    """Depths to try; one of a shortcut holds what it must, and may hold several times that."""
    least = 1 << (fifo.least - 1).bit_length() if fifo.least else 0
    most = min(max(deepest, 4 * least), 2**_BITS)
    rings = [2**k for k in range(1, most.bit_length()) if 2**k >= least]
    return ([0] if smallest == 0 and not least else []) + rings


class _Search:
    def __init__(
        self, design: Design, simulation: Simulation, images: int, smallest: int, deepest: int
    ) -> None:
        self._simulation = simulation
        self._fifos = _fifos(design)
        self._index = [k for k, node in enumerate(design.nodes) if node.op == _FIFO]
        self._beats = np.zeros((images, design.input.beats, design.input.bytes), np.uint8)
        self._candidates = [_candidates(node, smallest, deepest) for node in self._fifos]
        self._simulations = 0

    def run(self, slack: float) -> FifoSizing:
        unlimited = self._try([2**_BITS] * len(self._fifos))
        if not unlimited.whole:
            raise CheckFailedError(
                "the design hangs with FIFOs of any depth: `divqat check --bisect` says where."
            )
        deepest = self._try([one[-1] for one in self._candidates])
        allowed = timing(deepest).interval_cycles * (1 + slack)
        # What a FIFO never held, it does not need. One more candidate up: a ring holds one more
        # than its depth, two registers do not.
        depths = [
            next(c for c in candidates if c >= min(deepest.taps[k].most, candidates[-1]))
            for k, candidates in zip(self._index, self._candidates, strict=True)
        ]
        least = [one[0] for one in self._candidates]
        if self._keeps(least, allowed):
            depths = least
        for k in self._widest_first():
            below = [c for c in self._candidates[k] if c < depths[k]]
            low, high = 0, len(below)  # below[high] is known to be enough, or is the depth now
            while low < high:
                middle = (low + high) // 2
                if self._keeps([*depths[:k], below[middle], *depths[k + 1 :]], allowed):
                    high = middle
                else:
                    low = middle + 1
            depths[k] = [*below, depths[k]][high]
        final = self._try(depths)
        return FifoSizing(
            depths={node.name: depth for node, depth in zip(self._fifos, depths, strict=True)},
            interval_cycles=timing(final).interval_cycles,
            unlimited_cycles=timing(unlimited).interval_cycles,
            bits=sum(
                depth * node.output.lanes * node.output.bits
                for node, depth in zip(self._fifos, depths, strict=True)
            ),
            simulations=self._simulations,
        )

    def _widest_first(self) -> Iterator[int]:
        bits = [node.output.lanes * node.output.bits for node in self._fifos]
        yield from sorted(range(len(bits)), key=lambda k: -bits[k])

    def _keeps(self, depths: list[int], allowed: float) -> bool:
        answer = self._try(depths)
        return answer.whole and timing(answer).interval_cycles <= allowed

    def _try(self, depths: list[int]) -> Answer:
        self._simulations += 1
        return self._simulation.run(self._beats, limits=depths)

"""What a hardware design is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass

from divqat_brevitas.errors import InputError
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering.answer import AnswerUnit

DEFAULT_DEPTH = 16
STYLES = ("portable", "finn")
ANSWERS = ("accumulators", "top1")


@dataclass(frozen=True, kw_only=True)
class DesignSettings(ShortRepr):
    """How a network becomes a hardware design.

    Attributes:
        style: ``"portable"``: our modules for what finn-rtllib ties to AMD's primitives;
            ``"finn"``: finn-rtllib's own, with only what simulators need changed.
        fifo_depths: entries of every FIFO, or of each by its name (``input_fifo``,
            ``MVAU_rtl_0_fifo``, ...; others get 16, those of shortcuts what their sum needs).
            0: no FIFO there; else at least 2.
        output: ``"accumulators"``, or ``"top1"``: only the label, scaled, shifted and compared
            on the chip.
        answer: an answer unit: what leaves instead of accumulators, in place of ``output``.
        timeout_s: seconds after which FINN's worker process is stopped.

    Raises:
        InputError: an unknown style or output, or a FIFO of no possible depth.

    Example:
        >>> DesignSettings(fifo_depths={"input_fifo": 0}).depth("input_fifo")
        0
    """

    style: str = "portable"
    fifo_depths: Mapping[str, int] | int = DEFAULT_DEPTH
    output: str = "accumulators"
    answer: AnswerUnit | None = None
    timeout_s: float = 1800.0

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise InputError(f"style must be one of {', '.join(STYLES)}, not {self.style!r}.")
        if self.output not in ANSWERS:
            raise InputError(f"output must be one of {', '.join(ANSWERS)}, not {self.output!r}.")
        depths = self.fifo_depths
        for name, depth in depths.items() if isinstance(depths, Mapping) else [("", depths)]:
            if depth < 0 or depth == 1:
                which = f" of {name}" if name else ""
                raise InputError(
                    f"the FIFO depth{which} must be 0 (no FIFO) or at least 2, not {depth}."
                )

    def depth(self, name: str, needed: int | None = None) -> int:
        """Depth of the FIFO ``name``; ``needed``: where nothing is said of it."""
        if isinstance(self.fifo_depths, Mapping):
            return self.fifo_depths.get(name, needed or DEFAULT_DEPTH)
        return max(self.fifo_depths, needed or 0)

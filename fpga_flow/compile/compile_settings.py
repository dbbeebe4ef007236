"""What a FINN build is asked for."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from divqat_brevitas.errors import InputError, unknown_name
from fpga_flow.targets import open_target

# FINN takes any text as a part and estimates for it.
_PART = re.compile(r"xc[a-z0-9]+(-[a-z0-9]+)+", re.IGNORECASE)


MULTIPLIERS = ("none", "auto")


@dataclass(frozen=True, kw_only=True)
class CompileSettings:
    """Target and style of a FINN build.

    Attributes:
        board: a board FINN knows, such as ``Pynq-Z1``.
        part: an FPGA part such as ``xc7z020clg400-1``; used instead of the board's.
        clock_ns: clock period in nanoseconds, > 0.
        target_fps: images per second the folding aims at; None leaves every layer at PE=SIMD=1,
            or for an open target, fills it.
        target: a device of the open flow (``ecp5-85f``), for which our solver folds the network;
            None: FINN folds it.
        target_cycles: cycles an image at most, used instead of ``target_fps``; open targets only.
        fill: used instead of ``target_fps``: the fastest folding that takes at most this
            fraction of the open target's logic cells, in (0, 1].
        multipliers: of an open target: ``"none"``, all products in logic; ``"auto"``, in the
            device's multipliers where these save the most logic.
        folding_json: a FINN folding JSON, used instead of all of these. Its names are those
            of the specialised layers (``MVAU_rtl_0``); unknown ones are refused.
        standalone_thresholds: thresholds as layers of their own. The RTL matrix-vector unit
            needs it; without it these layers are HLS code.
        rtl_below_4_bits: ask for the RTL matrix-vector unit below 4 bits too, where FINN's
            default is HLS. It needs signed weights of at least 2 bits; other layers stay HLS.
        timeout_s: seconds after which the worker process is stopped.

    Raises:
        InputError: a value is out of range.

    Example:
        >>> CompileSettings(clock_ns=5.0).board
        'Pynq-Z1'
    """

    board: str = "Pynq-Z1"
    part: str | None = None
    clock_ns: float = 10.0
    target_fps: int | None = 1000
    target: str | None = None
    target_cycles: int | None = None
    fill: float | None = None
    multipliers: str = "none"
    folding_json: Path | None = None
    standalone_thresholds: bool = True
    rtl_below_4_bits: bool = True
    timeout_s: float = 1800.0

    def __post_init__(self) -> None:
        for name in ("clock_ns", "timeout_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a positive number, not {value!r}.")
        if self.target_fps is not None and self.target_fps < 1:
            raise InputError(f"target_fps must be at least 1, or None, not {self.target_fps!r}.")
        if self.target is not None:
            family = open_target(self.target).family
            if self.multipliers != "none" and not family.multipliers:
                raise InputError(
                    f"multipliers={self.multipliers!r}: products are not put into the multipliers "
                    f"of {self.target} yet. Leave multipliers at 'none'."
                )
        elif self.target_cycles is not None or self.fill is not None:
            raise InputError("target_cycles and fill need a target, such as 'ecp5-85f'.")
        if self.target_cycles is not None and self.target_cycles < 1:
            raise InputError(f"target_cycles must be at least 1, not {self.target_cycles!r}.")
        if self.target_cycles is not None and self.fill is not None:
            raise InputError("Give target_cycles or fill, not both.")
        if self.fill is not None and not 0 < self.fill <= 1:
            raise InputError(f"fill must be a fraction in (0, 1], not {self.fill!r}.")
        if self.multipliers not in MULTIPLIERS:
            raise unknown_name("multipliers", self.multipliers, MULTIPLIERS)
        if self.part is not None and not _PART.fullmatch(self.part):
            raise InputError(
                f"{self.part!r} is no part that FINN builds for: it must be an AMD part with "
                "package and speed grade, such as 'xc7z020clg400-1'."
            )

    @property
    def device(self) -> str:
        """What reports call the target: the part where one is given, else the board."""
        return self.part or self.board

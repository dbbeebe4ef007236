"""Clocks an ECP5's PLL can make, and dividers of a serial line."""

from dataclasses import dataclass

from divqat_brevitas.errors import InputError

# MHz; Lattice FPGA-DS-02012, "sysCLOCK PLL timing".
_PFD = (3.125, 400.0)
_VCO = (400.0, 800.0)
_DIVIDERS = 128
_FEEDBACKS = 80
# What FTDI's USB bridges reach: 3 Mbaud over whole numbers and a few fractions.
BAUDS = (3_000_000, 2_000_000, 1_500_000, 1_000_000, 750_000, 500_000, 250_000, 115_200)
# A byte's stop bit is sampled 9.5 bits behind its start: 2.5 % wrong, it is off by a quarter of
# a bit, which leaves a quarter for the sampling grain and the other side's clock.
_BAUD_TOLERANCE = 0.025
LEAST_DIVIDER = 4


@dataclass(frozen=True)
class Pll:
    """Settings of an ``EHXPLLL`` with feedback from its output.

    Attributes:
        input_divider: of the board's clock, before the phase detector.
        feedback_divider: of the output: the output is this many times the phase detector's rate.
        output_divider: of the oscillator.
        mhz: of the output.
        vco_mhz: of the oscillator.
    """

    input_divider: int
    feedback_divider: int
    output_divider: int
    mhz: float
    vco_mhz: float


def pll(mhz_in: float, wanted: float) -> Pll:
    """The settings that give the highest clock not above ``wanted``.

    Args:
        mhz_in: the board's clock in MHz, 8 to 400.
        wanted: MHz, 5 to 400.

    Raises:
        InputError: a clock out of range.

    Example:
        >>> pll(25.0, 70.0).mhz
        70.0
    """
    if not 8 <= mhz_in <= 400:
        raise InputError(f"an ECP5's PLL takes 8 to 400 MHz, not {mhz_in:g}.")
    if not 5 <= wanted <= 400:
        raise InputError(f"an ECP5's PLL gives clocks of 5 to 400 MHz here, not {wanted:g}.")
    best: tuple[tuple[float, float, float], Pll] | None = None
    for input_divider in range(1, _DIVIDERS + 1):
        pfd = mhz_in / input_divider
        if not _PFD[0] <= pfd <= _PFD[1]:
            continue
        # The largest feedback divider that does not go above; 1e-9: 25 / 3 * 9 is 75.
        feedback = min(int(wanted / pfd + 1e-9), _FEEDBACKS)
        if feedback == 0:
            continue
        mhz = pfd * feedback
        low, high = -int(-_VCO[0] // mhz), int(_VCO[1] / mhz)
        output = min(max(round(sum(_VCO) / 2 / mhz), low, 1), high, _DIVIDERS)
        vco = mhz * output
        if not _VCO[0] <= vco <= _VCO[1]:
            continue
        # Nearest first; then a fast phase detector, which jitters less; then the middle of the
        # oscillator's range.
        rank = (round(wanted - mhz, 9), -pfd, abs(vco - sum(_VCO) / 2))
        if best is None or rank < best[0]:
            best = rank, Pll(input_divider, feedback, output, mhz, vco)
    if best is None:
        raise InputError(f"an ECP5's PLL makes no clock near {wanted:g} MHz from {mhz_in:g} MHz.")
    return best[1]


def uart_divider(mhz: float, baud: int) -> int:
    """Clock cycles a bit of a serial line.

    Args:
        mhz: the clock.
        baud: bits a second.

    Raises:
        InputError: no whole number of cycles comes within 2.5 %.

    Example:
        >>> uart_divider(75.0, 3_000_000)
        25
    """
    cycles = mhz * 1e6 / baud
    divider = max(round(cycles), LEAST_DIVIDER)
    if abs(divider / cycles - 1) > _BAUD_TOLERANCE:
        near = fastest_baud(mhz)
        raise InputError(
            f"{baud} baud are {cycles:.2f} cycles of {mhz:g} MHz a bit: too far from a whole "
            f"number. Use another clock, or {near} baud."
        )
    return divider


def fastest_baud(mhz: float) -> int:
    """The fastest usual rate of a serial line that a clock can serve.

    Example:
        >>> fastest_baud(50.0)
        3000000
        >>> fastest_baud(25.0)
        1500000
    """
    for baud in BAUDS:
        cycles = mhz * 1e6 / baud
        if cycles >= 8 and abs(round(cycles) / cycles - 1) <= _BAUD_TOLERANCE:
            return baud
    raise InputError(f"a clock of {mhz:g} MHz is too slow for a serial line.")

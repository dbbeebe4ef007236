"""The devices a network can be compiled for, and what fits in each."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from divqat_brevitas.errors import unknown_name


@dataclass(frozen=True)
class Resources:
    """Amounts of a device's cells, of a design or of one layer."""

    # Logic cells (``TRELLIS_COMB`` on ECP5: one 4-input LUT each, carry chains included)
    lut: float = 0
    ff: float = 0  # flip-flops
    bram: float = 0  # block RAMs (``DP16KD`` of 18,432 bits on ECP5)
    dsp: float = 0  # multipliers (``MULT18X18D`` on ECP5)

    def __add__(self, other: "Resources") -> "Resources":
        """Cell by cell."""
        return Resources(
            self.lut + other.lut,
            self.ff + other.ff,
            self.bram + other.bram,
            self.dsp + other.dsp,
        )


@dataclass(frozen=True)
class OpenTarget:
    """A device of the open flow: yosys, nextpnr and Project Trellis."""

    name: str  # what users call it, such as ``ecp5-85f``
    device: str  # the part's name without package, such as ``LFE5U-85F``
    nextpnr: str  # nextpnr-ecp5's flag of the die, such as ``--85k``
    package: str  # such as ``CABGA381``
    speed: int  # speed grade, 6 (slowest) to 8
    capacity: Resources  # what the device holds, as nextpnr counts it

    @property
    def part(self) -> str:
        """The whole part number, as bitstreams carry it.

        Example:
            >>> target("ecp5-85f").part
            'LFE5U-85F-6CABGA381'
        """
        return f"{self.device}-{self.speed}{self.package}"


@dataclass(frozen=True)
class VivadoTarget:
    """A board of FINN's own flow, which needs AMD's tools."""

    name: str  # what users call it, such as ``pynq-z1``
    board: str  # FINN's name of it, such as ``Pynq-Z1``
    part: str  # the FPGA on it
    shell: str = "vivado_zynq"  # FINN's shell flow: ``vivado_zynq`` or ``vitis_alveo``


Target = OpenTarget | VivadoTarget

# As nextpnr-ecp5 0.11 prints them for an empty design. The 12F is the 25F's die.
_SMALL = Resources(lut=24_288, ff=24_288, bram=56, dsp=28)
_MIDDLE = Resources(lut=43_848, ff=43_848, bram=108, dsp=72)
_LARGE = Resources(lut=83_640, ff=83_640, bram=208, dsp=156)

_ALL: tuple[Target, ...] = (
    OpenTarget("ecp5-12f", "LFE5U-12F", "--12k", "CABGA381", 6, _SMALL),
    OpenTarget("ecp5-25f", "LFE5U-25F", "--25k", "CABGA381", 6, _SMALL),
    OpenTarget("ecp5-45f", "LFE5U-45F", "--45k", "CABGA381", 6, _MIDDLE),
    OpenTarget("ecp5-85f", "LFE5U-85F", "--85k", "CABGA381", 6, _LARGE),
    OpenTarget("ecp5-5g-45f", "LFE5UM5G-45F", "--um5g-45k", "CABGA381", 8, _MIDDLE),
    OpenTarget("ecp5-5g-85f", "LFE5UM5G-85F", "--um5g-85k", "CABGA381", 8, _LARGE),
    VivadoTarget("pynq-z1", "Pynq-Z1", "xc7z020clg400-1"),
    VivadoTarget("pynq-z2", "Pynq-Z2", "xc7z020clg400-1"),
    VivadoTarget("ultra96", "Ultra96", "xczu3eg-sbva484-1-e"),
    VivadoTarget("ultra96-v2", "Ultra96-V2", "xczu3eg-sbva484-1-i"),
    VivadoTarget("aup-zu3", "AUP-ZU3_8GB", "xczu3eg-sfvc784-2-e"),
    VivadoTarget("kv260", "KV260_SOM", "xck26-sfvc784-2LV-c"),
    VivadoTarget("zcu102", "ZCU102", "xczu9eg-ffvb1156-2-e"),
    VivadoTarget("zcu104", "ZCU104", "xczu7ev-ffvc1156-2-e"),
    VivadoTarget("zcu111", "ZCU111", "xczu28dr-ffvg1517-2-e"),
    VivadoTarget("rfsoc2x2", "RFSoC2x2", "xczu28dr-ffvg1517-2-e"),
    VivadoTarget("rfsoc4x2", "RFSoC4x2", "xczu48dr-ffvg1517-2-e"),
    VivadoTarget("u50", "U50", "xcu50-fsvh2104-2L-e", "vitis_alveo"),
    VivadoTarget("u55c", "U55C", "xcu55c-fsvh2892-2L-e", "vitis_alveo"),
    VivadoTarget("u250", "U250", "xcu250-figd2104-2L-e", "vitis_alveo"),
    VivadoTarget("u280", "U280", "xcu280-fsvh2892-2L-e", "vitis_alveo"),
)
TARGETS: Mapping[str, Target] = MappingProxyType({one.name: one for one in _ALL})


def target(name: str) -> Target:
    """The target of that name; upper and lower case are the same.

    Raises:
        InputError: unknown; the nearest known one is named.

    Example:
        >>> target("ecp5-85f").capacity.bram
        208
    """
    found = TARGETS.get(name.lower())
    if found is None:
        raise unknown_name("target", name, TARGETS)
    return found


def open_target(name: str) -> OpenTarget:
    """As ``target``, but an InputError for a board that only AMD's tools build for."""
    found = target(name)
    if not isinstance(found, OpenTarget):
        known = [one.name for one in _ALL if isinstance(one, OpenTarget)]
        raise unknown_name("device of the open flow", name, known)
    return found

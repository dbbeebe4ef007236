"""The devices a network can be compiled for, and what fits in each."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from divqat_brevitas.errors import unknown_name
from fpga_flow.devices import ecp5, gowin
from fpga_flow.devices.family import OpenTarget, Resources

__all__ = ["TARGETS", "OpenTarget", "Resources", "Target", "VivadoTarget", "open_target", "target"]


@dataclass(frozen=True)
class VivadoTarget:
    """A board of FINN's own flow, which needs AMD's tools."""

    name: str  # what users call it, such as ``pynq-z1``
    board: str  # FINN's name of it, such as ``Pynq-Z1``
    part: str  # the FPGA on it
    shell: str = "vivado_zynq"  # FINN's shell flow: ``vivado_zynq`` or ``vitis_alveo``


Target = OpenTarget | VivadoTarget

_ALL: tuple[Target, ...] = (
    *ecp5.DEVICES,
    *gowin.DEVICES,
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
        >>> target("ecp5-85f").part
        'LFE5U-85F-6CABGA381'
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

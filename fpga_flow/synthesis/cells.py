"""What a synthesised netlist is made of: cells of each kind, in all and layer by layer."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fpga_flow.devices.family import Family
from fpga_flow.rtl.design import Node


@dataclass(frozen=True)
class Cells:
    """Amounts of a device's cells; ``Family.cells`` has the family's names of them."""

    # 4-input LUTs, those of carry chains and LUT RAM included. With ``chain_ends`` they are
    # nextpnr's logic cells but for a handful: 33,670 and 33,672 of a ResNet-8.
    lut: int = 0
    ff: int = 0  # flip-flops
    bram: int = 0  # block RAMs of 18 Kibit
    lutram: int = 0  # LUT RAMs of 16 x 4 bits, their LUTs counted in ``lut``
    dsp: int = 0  # multipliers


@dataclass(frozen=True)
class LayerCells:
    """The cells of one layer of a design; ``(interface)`` are those around it."""

    name: str
    cells: Cells


OUTSIDE = "(interface)"


def count(types: Iterable[str], family: Family) -> Cells:
    """The cells of a netlist, given each one's type."""
    kinds: Counter[str] = Counter()
    for cell, number in Counter(types).items():
        for kind, amount in family.cells.get(cell, {}).items():
            kinds[kind] += amount * number
    return Cells(**kinds)


class Layers:
    """Finds the layer that a flattened cell or net belongs to, by its hierarchical name.

    Synthesis shares logic between layers; a shared cell is counted where its name says.

    Example:
        >>> Layers(["MVAU_rtl_0"]).of("core.MVAU_rtl_0_wstrm.ptr_TRELLIS_FF_Q")
        'MVAU_rtl_0'
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        # Longest first: MVAU_rtl_1 must not take what is of MVAU_rtl_10.
        ordered = sorted(names, key=len, reverse=True)
        either = "|".join(re.escape(name) for name in ordered) or "(?!)"
        self._pattern = re.compile(rf"(?:^|[.\\/])({either})(?![0-9])")

    def of(self, name: str) -> str:
        """Name of the layer, or ``(interface)``."""
        found = self._pattern.search(name)
        return found[1] if found else OUTSIDE

    def count(self, cells: Mapping[str, str], family: Family) -> tuple[LayerCells, ...]:
        """The cells of every layer, in the order of the layers; those without any are left out."""
        types: dict[str, list[str]] = {}
        for name, kind in cells.items():
            types.setdefault(self.of(name), []).append(kind)
        order = (*self._names, OUTSIDE)
        return tuple(
            LayerCells(name, count(types[name], family)) for name in order if name in types
        )


def of_nodes(nodes: Sequence[Node]) -> Layers:
    """``Layers`` of a design's nodes."""
    return Layers([node.name for node in nodes])


def top_module(netlist: Any) -> Any:
    """The top module of a netlist in yosys' JSON format."""
    for module in netlist["modules"].values():
        if int(module.get("attributes", {}).get("top", "0"), 2):
            return module
    raise ValueError("the netlist has no top module")


def cut_carries(module: Any) -> None:
    """Undo the carries of ECP5's chains that nobody needs, in a netlist's module.

    nextpnr spends a carry cell (two LUTs) on the end of a chain whose carry is a net, though
    nobody reads it, and one on its beginning, though its first half adds nothing and so makes a
    carry of 0 out of any.
    """
    readers = _readers(module)
    for cell in _carries(module).values():
        wires = cell["connections"]
        if not readers[wires["COUT"][0]]:
            wires["COUT"] = ["x"]
        if wires["CIN"] == ["0"] and not int(cell["parameters"]["INIT0"], 2):
            wires["CIN"] = ["x"]


def chain_ends(module: Any) -> dict[str, str]:
    """Carry cells that nextpnr adds to ECP5's chains, as names and types.

    One leads a carry into a chain that begins with a net or a constant, one leads it out where
    anything but the next carry cell reads it.
    """
    carries, readers = _carries(module), _readers(module)
    chained = Counter(cell["connections"]["CIN"][0] for cell in carries.values())
    made = {cell["connections"]["COUT"][0] for cell in carries.values()} - {"x"}
    added = {}
    for name, cell in carries.items():
        taken, given = cell["connections"]["CIN"][0], cell["connections"]["COUT"][0]
        if taken != "x" and taken not in made:
            added[f"{name}.begin"] = cell["type"]
        if given != "x" and not readers[given] == chained[given] == 1:
            added[f"{name}.end"] = cell["type"]
    return added


def _carries(module: Any) -> dict[str, Any]:
    return {name: cell for name, cell in module["cells"].items() if cell["type"] == "CCU2C"}


def _readers(module: Any) -> Counter[Any]:
    """How many inputs of cells, and ports, read each bit."""
    readers = Counter(
        bit
        for cell in module["cells"].values()
        for port, bits in cell["connections"].items()
        if cell["port_directions"][port] == "input"
        for bit in bits
    )
    readers.update(bit for port in module["ports"].values() for bit in port["bits"])
    return readers


def core_clock_names(module: Any, family: Family) -> frozenset[str]:
    """Names of the net that clocks most flip-flops of a netlist's module."""
    clocks = Counter(
        cell["connections"]["CLK"][0]
        for cell in module["cells"].values()
        if cell["type"] in family.flip_flops
    )
    if not clocks:
        return frozenset()
    clock = clocks.most_common(1)[0][0]
    return frozenset(name for name, net in module["netnames"].items() if net["bits"] == [clock])

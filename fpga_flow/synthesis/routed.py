"""nextpnr's placed and routed design as Verilog, to be simulated.

nextpnr packs, shares and moves cells after synthesis: what comes out is another netlist than what
went in. Each of its cells becomes one or two assignments here; block RAMs and multipliers stay
instances of their models.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import CheckFailedError
from divqat_brevitas.files import read_json

ROUTED = "routed.json"
_MODELLED = ("DP16KD", "MULT18X18D")
_INDEXED = re.compile(r"(.+)\[(\d+)\]")
# The write port of a LUT RAM passes its slice's pins on in this order.
_RAMW = {
    **{"WADO0": "D0", "WADO1": "B0", "WADO2": "C0", "WADO3": "A0"},
    **{"WDO0": "C1", "WDO1": "A1", "WDO2": "D1", "WDO3": "B1"},
}


@dataclass(frozen=True)
class _Cell:
    """A cell with pins as expressions."""

    name: str
    type: str
    parameters: Mapping[str, str]
    pins: Mapping[str, Sequence[Any]]
    outputs: frozenset[str]

    def net(self, pin: str) -> str | None:
        """The net at a pin, None where there is none."""
        bits = self.pins.get(pin, ())
        if not bits:
            return None
        return f"n{bits[0]}" if isinstance(bits[0], int) else f"1'b{bits[0]}"

    def get(self, name: str, default: str = "") -> str:
        """A parameter; nextpnr marks words that look like bits with a space behind."""
        return str(self.parameters.get(name, default)).rstrip()

    def pin(self, name: str, unconnected: str = "1'b1") -> str:
        """What a pin sees behind its multiplexer; the fabric pulls open pins up."""
        net = self.net(name) or unconnected
        match self.get(f"{name}MUX", name):
            case "0":
                return "1'b0"
            case "1":
                return "1'b1"
            case "INV":
                return f"~{net}"
            case _:
                return net


def routed_verilog(path: Path, top: str) -> str:
    """The design in nextpnr's ``routed.json`` as Verilog.

    Args:
        path: nextpnr's file.
        top: name to be given to the module; its ports keep theirs.

    Raises:
        CheckFailedError: a cell or a mode that is not modelled.
    """
    module = next(iter(read_json(path)["modules"].values()))
    cells = [
        _Cell(
            name,
            cell["type"],
            cell["parameters"],
            cell["connections"],
            frozenset(p for p, way in cell["port_directions"].items() if way == "output"),
        )
        for name, cell in module["cells"].items()
    ]
    lines: list[str] = []
    for k, cell in enumerate(cells):
        model = _MODELS.get(cell.type)
        if model is None:
            raise CheckFailedError(f"{path}: no model of {cell.type} ({cell.name}).")
        lines += model(cell, k)
    nets = {bit for cell in cells for bits in cell.pins.values() for bit in bits}
    ports, joined = _ports(module["ports"])
    nets |= {bit for port in module["ports"].values() for bit in port["bits"]}
    # Nets that no cell drives are what the ports' inputs are.
    declared = [f"  logic n{bit};" for bit in sorted(b for b in nets if isinstance(b, int))]
    body = "\n".join([*declared, *joined, *(f"  {line}" for line in lines)])
    return f"module {top} (\n{ports}\n);\n{body}\nendmodule\n"


def _ports(ports: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The port list, and assignments between ports and nets; buses are put together again."""
    widths: dict[str, int] = {}
    joined = []
    ways = {}
    for name, port in ports.items():
        found = _INDEXED.fullmatch(name)
        stem, index = (found[1], int(found[2])) if found else (name, 0)
        widths[stem] = max(widths.get(stem, 0), index + 1 if found else 0)
        ways[stem] = port["direction"]
        pin, net = f"{stem}[{index}]" if found else stem, f"n{port['bits'][0]}"
        a, b = (net, pin) if port["direction"] == "input" else (pin, net)
        joined.append(f"  assign {a} = {b};")
    rows = [
        f"  {ways[stem]} logic {f'[{width - 1}:0] ' if width else ''}{stem}"
        for stem, width in widths.items()
    ]
    return ",\n".join(rows), joined


def _logic(cell: _Cell, k: int) -> list[str]:
    a, b, c, d = (cell.pin(name) for name in "ABCD")
    table = f"16'b{cell.get('INITVAL', '0'):0>16}"
    f, ofx, carry = cell.net("F"), cell.net("OFX"), cell.net("FCO")
    lines = [f"logic f{k};"]
    match cell.get("MODE", "LOGIC"):
        case "LOGIC":
            lines.append(f"assign f{k} = {table} >> {{{d}, {c}, {b}, {a}}};")
        case "CCU2":
            lines += [f"logic p{k};", f"assign p{k} = {table} >> {{{d}, {c}, {b}, {a}}};"]
            carry_in = cell.net("FCI") or "1'b0"
            injected = cell.get("CCU2_INJECT1") == "YES"
            lines.append(f"assign f{k} = p{k}" + (";" if injected else f" ^ {carry_in};"))
            generate = "1'b0" if injected else f"1'(4'({table}) >> {{{b}, {a}}})"
            if carry:
                lines.append(f"assign {carry} = p{k} ? {carry_in} : {generate};")
        case "DPRAM":
            address = ", ".join(cell.pin(f"WAD{i}") for i in (3, 2, 1, 0))
            lines.append(f"logic [15:0] m{k} = {table};")
            lines.append(f"assign f{k} = m{k}[{{{a}, {c}, {b}, {d}}}];")
            lines.append(
                f"always_ff @(posedge {cell.pin('WCK')}) if ({cell.pin('WRE')}) "
                f"m{k}[{{{address}}}] <= {cell.pin('WD')};"
            )
        case "RAMW_BLOCK":
            return []
        case mode:
            raise CheckFailedError(f"no model of mode {mode} of TRELLIS_COMB ({cell.name}).")
    if f:
        lines.append(f"assign {f} = f{k};")
    if ofx:
        # The lower cell of a slice joins its LUT with the upper one's, the upper one two of those.
        high, low = (
            (cell.net("FXB"), cell.net("FXA")) if cell.net("FXA") else (cell.net("F1"), f"f{k}")
        )
        lines.append(f"assign {ofx} = {cell.pin('M')} ? {high} : {low};")
    return lines


def _flip_flop(cell: _Cell, k: int) -> list[str]:
    q = cell.net("Q")
    if q is None:
        return []
    start = "1'b1" if cell.get("REGSET") == "SET" else "1'b0"
    data = cell.pin("M" if cell.get("SD") == "0" else "DI")
    edge = "negedge" if cell.get("CLKMUX") == "INV" else "posedge"
    clock = f"{edge} {cell.net('CLK') or chr(48)}"
    reset = cell.pin("LSR") if cell.net("LSR") else "1'b0"
    enable = cell.pin("CE") if cell.net("CE") or cell.get("CEMUX") in "01" else "1'b1"
    sense = f"{clock} or posedge {reset}" if cell.get("SRMODE") == "ASYNC" else clock
    return [
        f"logic q{k} = {start};",
        f"always_ff @({sense}) if ({reset}) q{k} <= {start}; else if ({enable}) q{k} <= {data};",
        f"assign {q} = q{k};",
    ]


def _instance(cell: _Cell, k: int) -> list[str]:
    """A block RAM or multiplier: its own model, behind the pins' multiplexers."""
    settings = []
    for name, value in cell.parameters.items():
        stem = name.removesuffix("MUX")
        if stem != name and (stem in cell.pins or stem[:1] in "ABC"):
            continue  # part of the pin's expression
        if name not in _SETTINGS and not name.startswith("INITVAL_"):
            continue
        bits = re.fullmatch(r"[01]+", value)
        settings.append(
            f".{name}({len(value)}'b{value})" if bits else f'.{name}("{value.rstrip()}")'
        )
    pins = []
    for name in _pin_names(cell):
        net = cell.net(name) if name in cell.outputs else cell.pin(name)
        pins.append(f".{name}({net or ''})")
    return [f"{cell.type} #({', '.join(settings)}) i{k} ({', '.join(pins)});"]


_SETTINGS = frozenset(
    ("DATA_WIDTH_A", "DATA_WIDTH_B", "REGMODE_A", "REGMODE_B", "RESETMODE", "WRITEMODE_A")
) | {"WRITEMODE_B", "ASYNC_RESET_RELEASE", "CSDECODE_A", "CSDECODE_B"}


def _pin_names(cell: _Cell) -> list[str]:
    if cell.type == "DP16KD":
        ports = {"DI": 18, "AD": 14, "DO": 18}
        names = [f"{name}{side}{i}" for name, n in ports.items() for side in "AB" for i in range(n)]
        single = ("CE", "OCE", "CLK", "WE", "RST", "CS")
        for name in single:
            for side in "AB":
                names += [f"{name}{side}{i}" for i in range(3)] if name == "CS" else [name + side]
        return names
    names = [f"{name}{i}" for name in "ABC" for i in range(18)] + [f"P{i}" for i in range(36)]
    return [*names, "SIGNEDA", "SIGNEDB", "SOURCEA", "SOURCEB"]


def _pass(pairs: Mapping[str, str]) -> "Callable[[_Cell, int], list[str]]":
    """A cell whose outputs are its inputs: pin -> pin."""

    def model(cell: _Cell, k: int) -> list[str]:
        return [
            f"assign {cell.net(out)} = {cell.pin(source)};"
            for out, source in pairs.items()
            if cell.net(out)
        ]

    return model


def _pin_cell(cell: _Cell, k: int) -> list[str]:
    pad = cell.net("B")
    if cell.get("DIR") == "INPUT":
        return [f"assign {cell.net('O')} = {pad};"] if cell.net("O") else []
    if cell.get("DIR") == "OUTPUT":
        return [f"assign {pad} = {cell.pin('I')};"]
    raise CheckFailedError(f"no model of a pin of both directions ({cell.name}).")


def _pll(cell: _Cell, k: int) -> list[str]:
    """In simulation the clock pin is the core's clock itself."""
    lines = [f"assign {cell.net('CLKOP')} = {cell.net('CLKI')};"]
    if cell.net("LOCK"):
        lines.append(f"assign {cell.net('LOCK')} = 1'b1;")
    return lines


_MODELS: Mapping[str, Callable[[_Cell, int], list[str]]] = {
    "TRELLIS_COMB": _logic,
    "TRELLIS_FF": _flip_flop,
    "TRELLIS_RAMW": _pass(_RAMW),
    "TRELLIS_IO": _pin_cell,
    "DCCA": _pass({"CLKO": "CLKI"}),
    "EHXPLLL": _pll,
    **dict.fromkeys(_MODELLED, _instance),
}

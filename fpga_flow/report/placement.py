"""Where nextpnr put the cells: tiles by layer, from its placed and routed netlist."""

import re
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json

_BEL = re.compile(r"X(\d+)/Y(\d+)/")
# Columns and rows of tiles by die, from Project Trellis' database (max_col, max_row).
_DIES = {"-12F": (72, 50), "-25F": (72, 50), "-45F": (90, 71), "-85F": (126, 95)}


def placement(report: Path) -> dict[str, Any]:
    """The tiles that each layer of a placed design has cells in.

    Args:
        report: ``report.json`` of a bitstream, with nextpnr's ``routed.json`` beside it.

    Returns:
        Fields of :class:`fpga_flow.report.schema.Placement`; largest layers first.

    Raises:
        InputError: one of the files is damaged.
    """
    from fpga_flow.synthesis.cells import Layers  # a second to import

    routed = report.with_name("routed.json")
    try:
        built = read_json(report)
        layers = Layers([row["name"] for row in built["layers"] if row["name"][:1] != "("])
        (module, *_) = read_json(routed)["modules"].values()
        found: dict[str, set[tuple[int, int]]] = {}
        for name, cell in module["cells"].items():
            place = _BEL.match(cell["attributes"].get("NEXTPNR_BEL", ""))
            if place:
                of = layers.of(cell["attributes"].get("hdlname", name).replace(" ", "."))
                found.setdefault(of, set()).add((int(place[1]), int(place[2])))
        device = str(built["part"])
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise InputError(
            f"{routed} or the report beside it is damaged. Run `divqat compile` again."
        ) from e
    columns, rows = next((d for die, d in _DIES.items() if die in device), (None, None))
    return {
        "device": device,
        "columns": columns,
        "rows": rows,
        "tiles": {
            name: " ".join(f"{x},{y}" for x, y in sorted(tiles, key=lambda t: (t[1], t[0])))
            for name, tiles in sorted(found.items(), key=lambda item: -len(item[1]))
        },
    }

"""The lower verification levels: RTL, netlist, chip, each compared with the one above."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fpga_flow.console import Progress
from fpga_flow.engines.netlist import compare_netlist
from fpga_flow.engines.rtl import RtlEngine
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.pipeline.config import SimulateSection
from fpga_flow.rtl import Design

Images = npt.NDArray[np.float32]
Row = dict[str, Any]
# Fractions of the clock cycles in which no input is offered, or no output taken.
_STALLS = 0.3


def hardware_levels(
    onnx: Path, built: Path, images: Images, chosen: SimulateSection, progress: Progress
) -> list[Row]:
    """Compare what ``built`` holds of design, netlist and chip.

    Args:
        onnx: the QONNX file it was built from.
        built: a folder of the compile stage.
        images: to be compared, as many as ``chosen`` says.
        chosen: how many images each level gets.
        progress: where bars go.
    """
    design = Design.load(built / "design")
    rows = []
    if chosen.rtl_inputs:
        rows += _rtl(onnx, design, images[: chosen.rtl_inputs], progress)
    if (built / "bitstream" / "report.json").is_file():
        if chosen.netlist_inputs:
            progress.log(f"simulate: {built.name}: netlist after synthesis")
            some = images[: chosen.netlist_inputs]
            rows.append(compare_netlist(design, built / "bitstream", some))
        if chosen.chip_inputs:
            progress.log(f"simulate: {built.name}: whole chip, from the host's bytes")
            rows.append(_chip(design, built / "chip", images[: chosen.chip_inputs]))
    return rows


def _rtl(onnx: Path, design: Design, images: Images, progress: Progress) -> list[Row]:
    expected = IntegerEngine(onnx).accumulators(images)[design.output_layer]
    if design.unit is not None:
        expected = design.unit.codes(expected)
    rows = []
    for name, stalls in (("rtl", 0.0), ("rtl with stalls", _STALLS)):
        progress.log(f"simulate: {name}, {len(images):,} images")
        with RtlEngine(design, idle=stalls, back_pressure=stalls) as engine:
            found = engine.answers(images)
        rows.append(_row(design, "integer", name, expected, found))
    return rows


def _chip(design: Design, chip: Path, images: Images) -> Row:
    from fpga_flow.engines.chip import simulate_chip
    from fpga_flow.host.chip import Chip

    with RtlEngine(design) as engine:
        expected = engine.answers(images)
    whole = simulate_chip(design, Chip.load(chip))
    try:
        found = whole.answers(images)
    finally:
        whole.driver.close()
    return _row(design, "rtl", "chip", expected, found)


def _row(
    design: Design, a: str, b: str, expected: npt.NDArray[np.int64], found: npt.NDArray[np.int64]
) -> Row:
    differs = (expected != found).any(axis=1)
    return {
        "a": a,
        "b": b,
        "inputs": len(expected),
        "mismatches": int(differs.sum()),
        **design.compared,
    }

"""From a finished FINN build to a stitched design on disk."""

import re
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from divqat_brevitas.errors import InputError
from fpga_flow.compile.finn_build import FinnBuild
from fpga_flow.compile.prediction import Prediction, load_prediction
from fpga_flow.compile.worker_process import Worker
from fpga_flow.folding import shapes
from fpga_flow.folding.branches import Shortcut, shortcuts
from fpga_flow.lowering.answer import AnswerUnit, make_answer
from fpga_flow.rtl.answer_unit import OPS, answer_memories, answer_records
from fpga_flow.rtl.design import Design, Node, Stream, growing_design
from fpga_flow.rtl.design_settings import DesignSettings
from fpga_flow.rtl.layer_modules import cell, weights_file
from fpga_flow.rtl.library import library, needed
from fpga_flow.rtl.refusals import refuse_finn_style
from fpga_flow.rtl.stitch import TOP, isolated, stitched, top
from fpga_flow.rtl.windows import weight_memories

_FOLDED = "step_transpose_decomposition"
_CLOCK_NS = 10.0  # FINN asks for one; it changes nothing but the DSP58 unit
_LAYERS = "divqat_layers.sv"
_CODE = (".v", ".sv")
_BEHIND = (*OPS, "StreamingDataWidthConverter")


def generate_design(
    build: FinnBuild,
    folder: Path,
    settings: DesignSettings | None = None,
    worker: Worker | None = None,
) -> Design:
    """Generate the SystemVerilog of a build's network as one top, ``divqat_top``.

    The same build and settings give the same files, byte for byte. The design appears in
    ``folder`` whole or not at all; a former design there is replaced.

    Args:
        build: a finished FINN build.
        folder: new, empty, or with a former design.
        settings: style and FIFO depths.
        worker: runs FINN; None: a process of this call's own.

    Returns:
        the design.

    Raises:
        InputError: a layer has no RTL, an unknown FIFO name, or something else is in ``folder``.
        ToolMissingError: finn-plus is missing or of another version.
        BuildError: FINN failed, or its worker died.

    Example:
        >>> generate_design(build, Path("design")).nodes[0].name  # doctest: +SKIP
        'input_fifo'
    """
    settings = settings or DesignSettings()
    folder = Path(folder).absolute()
    if settings.style == "finn":
        refuse_finn_style(build.steps[_FOLDED], build.device)
    files = library(settings.style)
    with growing_design(folder) as growing:
        code = growing / "code"
        records = _run_finn(build, growing, code, settings, worker)
        design = _assemble(build, growing, code, records, files, settings)
        shutil.rmtree(code)
        design.save()
    return Design.load(folder)


def _run_finn(
    build: FinnBuild,
    growing: Path,
    code: Path,
    settings: DesignSettings,
    worker: Worker | None,
) -> list[dict[str, Any]]:
    code.mkdir()
    work = growing / "work"
    work.mkdir()
    job = {
        "kind": "call",
        "function": "fpga_flow.rtl.hardware:generate",
        "model": str(build.steps[_FOLDED]),
        "device": build.device,
        "clock_ns": _CLOCK_NS,
        "style": settings.style,
        "folder": str(code),
    }
    log = work / "finn.log"
    with nullcontext(worker) if worker else Worker(work, log, log_kept=False) as running:
        records: list[dict[str, Any]] = running.run(job, settings.timeout_s)
    shutil.rmtree(work)
    return records


def _assemble(
    build: FinnBuild,
    folder: Path,
    code: Path,
    records: list[dict[str, Any]],
    files: Mapping[str, str],
    settings: DesignSettings,
) -> Design:
    generated: dict[str, str] = {}
    data: list[str] = []
    for record in records:
        for name in record["files"]:
            path = code / record["name"] / name
            if path.suffix in _CODE and "memstream" not in name:
                generated[name] = _without_nettype(path.read_text(encoding="utf-8"))
            elif name == "memblock.dat":
                if "weights" in record:
                    data.append(weights_file(record["name"]))
                    shutil.copyfile(path, folder / data[-1])
            elif path.suffix == ".dat":
                data.append(name)
                shutil.copyfile(path, folder / name)
    unit = _answer(build, records[-1]["output"], settings)
    if unit is not None:
        pace = max(record["cycles"] for record in records)
        records = [*records, *answer_records(records[-1], unit, pace)]
        for name, text in answer_memories(unit, records[-1]["serial"]).items():
            data.append(name)
            (folder / name).write_text(text, encoding="utf-8")
    nodes = stitched(_nodes(records, build, settings.style), settings, _shortcuts(build))
    styles = weight_memories(records) if settings.style == "portable" else {}
    generated[_LAYERS] = "".join(cell(r, styles.get(r["name"], "auto")) for r in records)
    generated[f"{TOP}.sv"] = top(nodes)
    generated["divqat_isolated.sv"] = isolated(nodes)
    sources = needed(generated, dict(files)) | generated
    (folder / "src").mkdir()
    for name, text in sources.items():
        (folder / "src" / name).write_text(text, encoding="utf-8")
    return Design(
        folder=folder,
        top=TOP,
        sources=tuple(f"src/{name}" for name in sources),
        data=tuple(sorted(data)),
        style=settings.style,
        nodes=nodes,
        input=nodes[0].input,
        output=nodes[-1].output,
        input_shape=build.input_shape,
        input_step=build.input_step,
        output_layer=build.output_layer,
        output_scale=build.output_scale,
        output_bias=build.output_bias,
        onnx_sha256=build.onnx_sha256,
        versions=dict(build.versions),
        answer=unit.name if unit else "accumulators",
        unit=unit,
    )


def _answer(
    build: FinnBuild, last: Mapping[str, int], settings: DesignSettings
) -> AnswerUnit | None:
    """The answer unit asked for; None where accumulators leave the chip."""
    classes = last["lanes"] * last["beats"]
    unit = settings.answer
    if unit is None and settings.output == "top1":
        scale, bias = (
            np.broadcast_to(values, classes).tolist()
            for values in (build.output_scale, build.output_bias)
        )
        unit = make_answer("top1", scale, bias)
    if unit is not None and unit.outputs != classes:
        raise InputError(
            f"the answer unit is of {unit.outputs} classes, the network of {classes}: make it "
            "from the network's own output scale and bias."
        )
    return unit


def _nodes(records: list[dict[str, Any]], build: FinnBuild, style: str) -> list[Node]:
    """The layers without FIFOs, with the QONNX tensors their integers are of."""
    layers = {record["name"]: record.get("tensor") for record in records}
    network = [record for record in records if record["op"] not in _BEHIND]
    if network[-1]["op"] in shapes.PRODUCTS:
        layers[network[-1]["name"]] = build.output_tensor
    predicted = load_prediction(build)
    return [
        Node(
            name=record["name"],
            op=record["op"],
            layer=layers[record["name"]],
            input=Stream(**record["input"]),
            output=Stream(**record["output"]),
            cycles=_cycles(predicted, record["name"], style),
            finn_cycles=record["cycles"],
            pe=record["pe"],
            simd=record["simd"],
            sources=tuple(record.get("sources", ())),
            others=tuple(Stream(**one) for one in record.get("others", ())),
            copies=record.get("copies", 1),
            multipliers=record.get("multipliers", False),
        )
        for record in records
    ]


def _shortcuts(build: FinnBuild) -> list[Shortcut]:
    """What the shortcuts of a network with branches have to hold."""
    predicted = load_prediction(build)
    return [] if predicted is None else shortcuts(predicted.shapes, predicted.folding)


def _cycles(predicted: Prediction | None, name: str, style: str) -> int | None:
    """What our cycle model computes for a single layer."""
    if predicted is None:
        return None
    return (predicted.finn_cycles if style == "finn" else predicted.cycles).get(name)


def _without_nettype(text: str) -> str:
    return re.sub(r"`default_nettype \w+", "", text)

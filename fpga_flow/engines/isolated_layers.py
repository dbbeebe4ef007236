"""Each layer's own speed: all of them side by side, always fed and always drained."""

import subprocess
from pathlib import Path

import numpy as np

from divqat_brevitas.errors import CheckFailedError
from fpga_flow.engines.verilator import verilate
from fpga_flow.rtl.design import Design

_DRIVER = Path(__file__).parent / "cpp" / "isolated.cpp"
_TOP = "divqat_isolated"
_IMAGES = 3


def measure_layers(design: Design) -> dict[str, int]:
    """Clock cycles an image of every layer by itself, by simulation; one build for all.

    Args:
        design: a generated design.

    Returns:
        by layer in chain order, without FIFOs: cycles between its second image and its third,
        with input always offered and output always taken.

    Raises:
        CheckFailedError: a layer does not give three images.
        ToolMissingError: Verilator or a C++ compiler is not installed.

    Example:
        >>> measure_layers(design)["MVAU_rtl_0"]  # doctest: +SKIP
        512
    """
    layers = [node for node in design.nodes if node.op != "StreamingFIFO"]
    each = [f"LAYER({k}, {node.name}, {node.output.beats})" for k, node in enumerate(layers)]
    ports = f"#define LAYERS {len(layers)}\n#define EVERY_LAYER {' '.join(each)}\n"
    executable = verilate(
        design.folder,
        design.sources,
        _TOP,
        driver=_DRIVER,
        headers={"ports.h": ports},
    )
    # No layer takes twice FINN's estimate; the first image comes later than the others.
    slowest = max(max(node.finn_cycles, node.input.beats, node.output.beats) for node in layers)
    command = [str(executable), str(2 * (_IMAGES + 1) * slowest + 10_000)]
    done = subprocess.run(command, cwd=design.folder, stdout=subprocess.PIPE, check=False)
    when = np.zeros((len(layers), _IMAGES), dtype=np.int64)
    if done.returncode == 0:
        when = np.frombuffer(done.stdout, "<i8").reshape(when.shape)
    for node, cycles in zip(layers, when, strict=True):
        if cycles[-1] == 0:
            raise CheckFailedError(
                f"{node.name} ({node.op}) of {design.folder} gives no {_IMAGES} images by itself: "
                f"{node.output.beats} beats each, after {command[1]} cycles."
            )
    return {
        node.name: int(cycles[2] - cycles[1]) for node, cycles in zip(layers, when, strict=True)
    }

"""Another top over the same layers: other FIFOs, or a part of the chain. Needs no FINN."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from divqat_brevitas.errors import unknown_name
from fpga_flow.lowering.input_step import InputStep
from fpga_flow.rtl.design import Design, Node, growing_design
from fpga_flow.rtl.design_settings import DesignSettings
from fpga_flow.rtl.stitch import FIFO, TOP, chain, isolated, top


def restitch(
    design: Design,
    folder: Path,
    *,
    fifo_depths: Mapping[str, int] | int | None = None,
    first: str | None = None,
    last: str | None = None,
) -> Design:
    """Stitch a design's layers again, in a fraction of a second.

    Args:
        design: a design.
        folder: of the new one; new, empty, or with a former design.
        fifo_depths: as in ``DesignSettings``; None: as they are.
        first: name of the first layer to be kept; None: all from the beginning.
        last: name of the last layer to be kept; None: all to the end.

    Returns:
        the new design. Where it is a part, it takes and gives the integers at its ends:
        ``input_shape`` is (integers an image,), the input's and the output's scale 1.

    Raises:
        InputError: an unknown layer or FIFO, or something else is in ``folder``.

    Example:
        >>> restitch(design, Path("small"), fifo_depths={"input_fifo": 2})  # doctest: +SKIP
    """
    layers = [node for node in design.nodes if node.op != FIFO]
    start = 0 if first is None else _index(layers, first)
    end = len(layers) if last is None else _index(layers, last) + 1
    if fifo_depths is None:
        present = {node.name: node.depth or 0 for node in design.nodes if node.op == FIFO}
        before = "input_fifo" if start == 0 else f"{layers[start - 1].name}_fifo"
        fifo_depths = {"input_fifo": present.get(before, 0)}
        for layer in layers[start:end]:
            fifo_depths[f"{layer.name}_fifo"] = present.get(f"{layer.name}_fifo", 0)
    nodes = chain(layers[start:end], DesignSettings(fifo_depths=fifo_depths))
    with growing_design(folder) as growing:
        shutil.copytree(design.folder / "src", growing / "src")
        for name in design.data:
            shutil.copyfile(design.folder / name, growing / name)
        (growing / "src" / f"{TOP}.sv").write_text(top(nodes), encoding="utf-8")
        (growing / "src" / "divqat_isolated.sv").write_text(isolated(nodes), encoding="utf-8")
        new = replace(
            design, folder=growing, nodes=nodes, input=nodes[0].input, output=nodes[-1].output
        )
        if start > 0:
            shape, stream = (new.input.lanes * new.input.beats,), new.input
            step = InputStep.plain(1.0, stream.bits, shape, stream.signed, stream.range)
            new = replace(new, input_shape=shape, input_step=step)
        if end < len(layers):
            new = replace(
                new, answer="accumulators", unit=None, output_scale=(1.0,), output_bias=(0.0,)
            )
        new.save()
    return Design.load(folder)


def _index(layers: list[Node], name: str) -> int:
    names = [layer.name for layer in layers]
    if name not in names:
        raise unknown_name("layer", name, names)
    return names.index(name)

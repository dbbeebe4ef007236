"""Another top over the same layers: other FIFOs, or a part of the network. Needs no FINN."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from divqat_brevitas.errors import InputError, unknown_name
from fpga_flow.folding.branches import INPUT
from fpga_flow.lowering.input_step import InputStep
from fpga_flow.rtl.design import Design, Node, growing_design
from fpga_flow.rtl.design_settings import DesignSettings
from fpga_flow.rtl.stitch import FIFO, TOP, isolated, kept_shortcuts, stitched, top, unstitched


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
        InputError: an unknown layer or FIFO, a part that cuts a branch, or something else is in
            ``folder``.

    Example:
        >>> restitch(design, Path("small"), fifo_depths={"input_fifo": 2})  # doctest: +SKIP
    """
    layers = unstitched(design.nodes)
    start = 0 if first is None else _index(layers, first)
    end = len(layers) if last is None else _index(layers, last) + 1
    part = _part(layers, start, end)
    if fifo_depths is None:
        present = {node.sources[0]: node.depth or 0 for node in design.nodes if node.op == FIFO}
        fifo_depths = {"input_fifo": present.get(layers[start].sources[0], 0)}
        fifo_depths |= {f"{p}_fifo": present.get(p, 0) for layer in part for p in layer.ports}
    inside = {port for layer in part for port in layer.ports}
    shortcuts = [one for one in kept_shortcuts(design.nodes) if one.port in inside]
    nodes = stitched(part, DesignSettings(fifo_depths=fifo_depths), shortcuts)
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


def _part(layers: list[Node], start: int, end: int) -> list[Node]:
    """The layers from ``start`` to before ``end``, which only their ends connect to others."""
    part = layers[start:end]
    inside = {port for layer in part for port in layer.ports}
    loose = {port for layer in part[:-1] for port in layer.ports}
    for layer in part[1:]:
        if not inside.issuperset(layer.sources):
            raise _cuts(part, layer)
        loose.difference_update(layer.sources)
    if loose or (start and len(part[0].sources) > 1) or part[-1].copies > 1:
        raise _cuts(part, part[-1])
    return [replace(part[0], sources=(INPUT,)), *part[1:]]


def _cuts(part: list[Node], layer: Node) -> InputError:
    return InputError(
        f"the part from {part[0].name} to {part[-1].name} cuts a branch at {layer.name}. Begin "
        "behind a fork or in front of it, and end behind the sum of its branches."
    )


def _index(layers: list[Node], name: str) -> int:
    names = [layer.name for layer in layers]
    if name not in names:
        raise unknown_name("layer", name, names)
    return names.index(name)

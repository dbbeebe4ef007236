"""What flows between the layers of a simulated design."""

import numpy as np
import numpy.typing as npt

from fpga_flow.engines.simulation import Answer, Simulation, SimulationError, Tap, compiled
from fpga_flow.lowering import check_images
from fpga_flow.rtl.design import Bytes, Design, Integers


def observe(design: Design, images: npt.NDArray[np.float32]) -> dict[str, Integers]:
    """The integers on every node's output stream.

    Args:
        design: the design; its variant with taps is compiled at the first call.
        images: float32 (N, *input_shape) in the input range.

    Returns:
        by node name, in chain order: int64 (N, lanes · beats), channels last, as they flow.

    Raises:
        InputError: images of another kind.
        SimulationError: the hardware hangs, or a node, named, gives too few or too many beats.
        ToolMissingError: Verilator or a C++ compiler is not installed.

    Example:
        >>> observe(design, images)["Thresholding_rtl_0"].shape  # doctest: +SKIP
        (1, 512)
    """
    check_images(images, design.input_shape, design.input_step.declared)
    answer = _tapped(design, design.beats(images))
    wrong = _first_wrong(design, answer.taps, len(images))
    if wrong is not None:
        raise SimulationError(_story(design, answer, wrong, len(images)))
    streams = {}
    for node, tap in zip(design.nodes, answer.taps, strict=True):
        beats = tap.data[: len(images) * node.output.beats]
        streams[node.name] = node.output.unpack(beats).reshape(len(images), -1)
    return streams


def explain_hang(
    design: Design, beats: Bytes, answer: Answer, *, idle: int, back_pressure: int, seed: int
) -> str:
    """Why ``answer`` is not whole: simulates again with taps and names the stream that stopped."""
    images = len(beats)
    tapped = _tapped(design, beats, idle=idle, back_pressure=back_pressure, seed=seed)
    wrong = _first_wrong(design, tapped.taps, images)
    if wrong is None:
        return (
            f"the hardware of {design.folder} stopped after {answer.given} of "
            f"{images * design.output.beats} answers' beats, but not when it was simulated again "
            "with its inner streams in view: is its order of evaluation undefined somewhere?"
        )
    return _story(design, tapped, wrong, images)


def _tapped(
    design: Design, beats: Bytes, *, idle: int = 0, back_pressure: int = 0, seed: int = 0
) -> Answer:
    simulation = Simulation(design, compiled(design, taps=True))
    try:
        return simulation.run(
            beats, idle=idle, back_pressure=back_pressure, seed=seed, observe=True
        )
    finally:
        simulation.close()


def _first_wrong(design: Design, taps: tuple[Tap, ...], images: int) -> int | None:
    """Index of the node at fault: the first that did not give the beats of ``images``.

    Not those before it that offer what is not taken. Part of one more image is fine: padding
    gives its first rows before it takes anything.
    """
    blocked = None
    for index, (node, tap) in enumerate(zip(design.nodes, taps, strict=True)):
        if images <= tap.beats / node.output.beats < images + 1:
            continue
        if tap.beats < images * node.output.beats and tap.valid and not tap.ready:
            blocked = index
            continue
        return index
    return blocked


def _story(design: Design, answer: Answer, index: int, images: int) -> str:
    node, tap = design.nodes[index], answer.taps[index]
    before = design.before(node)
    source = " and ".join(one.name for one in before) or "the input"
    counts = [answer.taps[design.nodes.index(one)].beats for one in before]
    taken = min(counts, default=answer.taken)
    expected = images * node.output.beats
    if tap.beats > expected:
        how = "gives more than it should"
    elif tap.valid and not tap.ready:
        how = "offers its next beat, which is not taken"
    else:
        how = "offers no more"
    return (
        f"the hardware of {design.folder} does not stream {images} images through: {node.name} "
        f"({node.op}) {how}. It gave {tap.beats} of {expected} beats, and took {taken} of "
        f"{images * node.input.beats} from {source}. This is a fault of the design, not of the "
        "images: `divqat check --bisect` compares all streams."
    )

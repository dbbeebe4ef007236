"""The folding solver as a step of a build, and what it predicts as a file of the build."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.registry import getCustomOp

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import write_json
from fpga_flow.compile.finn_layers import current_folding, layer_shapes
from fpga_flow.compile.prediction import PREDICTION
from fpga_flow.folding import shapes
from fpga_flow.folding.cycles import chain_cycles, interval, portable_layers, searched
from fpga_flow.folding.shapes import LayerShape
from fpga_flow.folding.solver import SHARE, Solution, budget, cheapest, evaluate, fastest
from fpga_flow.targets import Resources, open_target

_MODELLED = (
    *shapes.PRODUCTS,
    shapes.THRESHOLDING,
    shapes.PADDING,
    shapes.WINDOW,
    shapes.POOL,
    shapes.FORK,
    shapes.JOIN,
    shapes.CONCAT,
    shapes.SUM,
    shapes.SHIFT,
)


@dataclass(frozen=True)
class Request:
    """What a folding is asked to be.

    Attributes:
        cycles: an image at most; None: as few as fit.
        within: cells it may take; None: anything.
    """

    cycles: int | None
    within: Resources | None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """From a ``CompileSettings`` with an open target, as a dictionary."""
        share = SHARE
        if settings["fill"] is not None:
            share = Resources(settings["fill"], settings["fill"], SHARE.bram, SHARE.dsp)
        if settings["multipliers"] == "none":
            share = replace(share, dsp=0.0)
        within = budget(open_target(settings["target"]).capacity, share)
        cycles: int | None = settings["target_cycles"]
        if cycles is None and settings["fill"] is None and settings["target_fps"] is not None:
            cycles = max(1, int(1e9 / settings["clock_ns"] / settings["target_fps"]))
        return cls(cycles, within)


def solve(layers: Sequence[LayerShape], request: Request) -> Solution:
    """The folding of a network's layers.

    Raises:
        InputError: a layer is of a kind that is not modelled, or nothing is as fast.
        CheckFailedError: nothing fits.
    """
    layers = portable_layers(layers)
    for shape in layers:
        if shape.kind not in _MODELLED:
            raise InputError(
                f"No folding is known for the layer {shape.name} ({shape.kind}): the solver knows "
                f"{', '.join(_MODELLED)}. Give a folding file instead."
            )
    if request.cycles is not None:
        return cheapest(layers, request.cycles, request.within)
    if request.within is None:
        raise InputError("A folding needs a number of cycles, or a device to fill.")
    return fastest(layers, request.within)


def step_solve_folding(model: ModelWrapper, cfg: Any) -> ModelWrapper:
    """A FINN build step: the cheapest folding for the images a second that ``cfg`` asks for.

    In place of step_target_fps_parallelization, or after step_specialize_layers in a FINN YAML::

        inject_steps_after:
          step_specialize_layers: [fpga_flow.compile.solving.step_solve_folding]

    Args:
        model: the model after step_specialize_layers.
        cfg: FINN's build configuration; ``target_fps`` and ``synth_clk_period_ns`` count.

    Raises:
        InputError: no target_fps, or nothing is as fast.
    """
    if cfg.target_fps is None:
        raise InputError("step_solve_folding needs target_fps in FINN's configuration.")
    cycles = max(1, int(1e9 / cfg.synth_clk_period_ns / cfg.target_fps))
    return fold(model, Request(cycles, None))


def fold(model: ModelWrapper, request: Request) -> ModelWrapper:
    """Solve for ``model``'s layers, and set their folding in place."""
    layers = portable_layers(layer_shapes(model))
    folding = solve(layers, request).finn(layers)
    for node in model.graph.node:
        operator = getCustomOp(node)
        for attribute, value in folding[node.name].items():
            operator.set_nodeattr(attribute, value)
    return model


def write_prediction(model: ModelWrapper, folder: Path) -> None:
    """Write what the models say of ``model``'s folding, where they know all of its layers."""
    layers = layer_shapes(model)
    if not layers or any(shape.kind not in _MODELLED for shape in layers):
        return
    folding = current_folding(model)
    fused = portable_layers(layers)
    found = evaluate(fused, searched(fused, folding))
    record = {
        "shapes": [asdict(shape) for shape in fused],
        "folding": {name: asdict(one) for name, one in found.folding.items()},
        "cycles": dict(found.cycles),
        "cycles_per_image": found.cycles_per_image,
        "finn_style": {
            "cycles": chain_cycles(layers, folding, "finn"),
            "cycles_per_image": interval(layers, folding, "finn"),
        },
        "layers": {name: asdict(cells) for name, cells in found.layers.items()},
        "resources": asdict(found.resources),
        "latency": found.latency,
    }
    write_json(folder / PREDICTION, record)

"""What our models predict of a finished build, and a folding that fits where it does not."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.files import read_json, write_json
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.compile.finn_build import FinnBuild
from fpga_flow.folding.shapes import Folding, LayerShape
from fpga_flow.folding.solver import SHARE, Solution, budget, fastest
from fpga_flow.targets import OpenTarget, Resources

PREDICTION = "prediction.json"


@dataclass(frozen=True)
class Prediction(ShortRepr):
    """What a build's folding is expected to give; see ``folding.solver.Solution``.

    Attributes:
        shapes: the layers, as the portable style builds them.
        folding: theirs, by name.
        cycles: clock cycles an image by layer (``MVAU_rtl_0``) and converter (``MVAU_rtl_0_dwc``),
            each by itself, in the portable style.
        cycles_per_image: of the whole chain.
        finn_cycles: as ``cycles``, in FINN's style, and ``finn_cycles_per_image``.
        layers: cells by layer.
        resources: cells of the whole, with a host interface.
        latency: cycles from the first pixel to the last output.
    """

    shapes: tuple[LayerShape, ...]
    folding: Mapping[str, Folding]
    cycles: Mapping[str, int]
    cycles_per_image: int
    finn_cycles: Mapping[str, int]
    finn_cycles_per_image: int
    layers: Mapping[str, Resources]
    resources: Resources
    latency: int


def load_prediction(build: FinnBuild) -> Prediction | None:
    """The prediction of ``build``; None where it has a layer our models do not know.

    Raises:
        InputError: it is of another version.

    Example:
        >>> load_prediction(FinnBuild.load(Path("build"))).cycles["MVAU_rtl_0"]  # doctest: +SKIP
        4704
    """
    path = build.folder / PREDICTION
    if not path.exists():
        return None
    try:
        return _prediction(read_json(path))
    except (KeyError, TypeError) as e:
        raise InputError(f"{path} is not of this version ({e}). Run `divqat compile` again.") from e


def _prediction(record: dict[str, Any]) -> Prediction:
    return Prediction(
        shapes=tuple(LayerShape(**_plain(shape)) for shape in record["shapes"]),
        folding=MappingProxyType({n: Folding(**one) for n, one in record["folding"].items()}),
        cycles=MappingProxyType(record["cycles"]),
        cycles_per_image=record["cycles_per_image"],
        finn_cycles=MappingProxyType(record["finn_style"]["cycles"]),
        finn_cycles_per_image=record["finn_style"]["cycles_per_image"],
        layers=MappingProxyType({n: Resources(**r) for n, r in record["layers"].items()}),
        resources=Resources(**record["resources"]),
        latency=record["latency"],
    )


def _plain(shape: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in shape.items()}


FITTING = "fitting_folding.json"


def fitting(
    build: FinnBuild, target: OpenTarget, over: Mapping[str, tuple[int, int]]
) -> Solution | None:
    """The fastest folding that should fit ``target``, and is no faster than the build's.

    What synthesis found scales the estimate: where it needed 20 % more logic than estimated, the
    new folding may take 20 % less.

    Args:
        build: of the design that did not fit.
        target: the device.
        over: kind of cell (``lut``, ``ff``, ``bram``, ``dsp``) -> (needed, available).

    Returns:
        None where no folding fits, or the layers are not modelled.
    """
    predicted = load_prediction(build)
    if predicted is None:
        return None
    limit = budget(target.capacity)

    def scaled(kind: str) -> float:
        needed, estimated = over.get(kind, (0, 0))[0], getattr(predicted.resources, kind)
        amount: float = getattr(limit, kind)
        return amount * min(1.0, estimated / needed) if needed and estimated else amount

    dsp = scaled("dsp") if predicted.resources.dsp else 0.0
    within = Resources(scaled("lut"), scaled("ff"), scaled("bram"), dsp)
    try:
        return fastest(predicted.shapes, within, predicted.cycles_per_image)
    except (CheckFailedError, InputError):
        return None


def fitting_advice(
    build: FinnBuild, target: OpenTarget, over: Mapping[str, tuple[int, int]], folder: Path
) -> str:
    """What to tell a user whose design did not fit: a folding, written to ``folder``.

    Args:
        build: see ``fitting``.
        target: see ``fitting``.
        over: see ``fitting``.
        folder: gets ``fitting_folding.json``, which can be given as folding file.
    """
    found = fitting(build, target, over)
    predicted = load_prediction(build)
    if found is None or predicted is None:
        return (
            f"No folding of this network is expected to fit {target.name}: take a larger device or "
            "a smaller network."
        )
    write_json(folder / FITTING, found.finn(predicted.shapes))
    return (
        f"A folding of {found.cycles_per_image:,} cycles an image (now "
        f"{predicted.cycles_per_image:,}) should fit, with about {found.resources.lut:,.0f} logic "
        f"cells and {found.resources.bram:.0f} block RAMs: {folder / FITTING}, to be given as "
        f"folding file; or ask for fill = {SHARE.lut:g}."
    )

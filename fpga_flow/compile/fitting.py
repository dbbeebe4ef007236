"""A folding that would fit, for a design that did not."""

from collections.abc import Mapping
from pathlib import Path

from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.files import write_json
from fpga_flow.compile.build import FinnBuild
from fpga_flow.compile.prediction import load_prediction
from fpga_flow.compile.solve import SHARE, Solution, budget, fastest
from fpga_flow.compile.targets import OpenTarget, Resources

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

    within = Resources(scaled("lut"), scaled("ff"), scaled("bram"), scaled("dsp"))
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

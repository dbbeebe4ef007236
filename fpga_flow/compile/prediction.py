"""What our models predict of a finished build: cycles a layer, and cells on ECP5."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from divqat_brevitas.files import read_json
from fpga_flow.compile.build import FinnBuild
from fpga_flow.compile.targets import Resources

PREDICTION = "prediction.json"


@dataclass(frozen=True)
class Prediction:
    """What a build's folding is expected to give; see ``solve.Solution``.

    Attributes:
        cycles: clock cycles an image by layer (``MVAU_rtl_0``) and converter (``MVAU_rtl_0_dwc``).
        layers: cells by layer.
        resources: cells of the whole, with a host interface.
        latency: cycles from the first pixel to the last output.
    """

    cycles: Mapping[str, int]
    layers: Mapping[str, Resources]
    resources: Resources
    latency: int

    @property
    def cycles_per_image(self) -> int:
        """Of the slowest, which sets the rate."""
        return max(self.cycles.values())


def load_prediction(build: FinnBuild) -> Prediction | None:
    """The prediction of ``build``; None where it has a layer our models do not know.

    Example:
        >>> load_prediction(FinnBuild.load(Path("build"))).cycles["MVAU_rtl_0"]  # doctest: +SKIP
        4704
    """
    path = build.folder / PREDICTION
    if not path.exists():
        return None
    record = read_json(path)
    return Prediction(
        cycles=MappingProxyType(record["cycles"]),
        layers=MappingProxyType({n: Resources(**r) for n, r in record["layers"].items()}),
        resources=Resources(**record["resources"]),
        latency=record["latency"],
    )

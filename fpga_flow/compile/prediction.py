"""What our models predict of a finished build: cycles a layer, and cells on ECP5."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.compile.build import FinnBuild
from fpga_flow.compile.shapes import Folding, LayerShape
from fpga_flow.compile.targets import Resources

PREDICTION = "prediction.json"


@dataclass(frozen=True)
class Prediction(ShortRepr):
    """What a build's folding is expected to give; see ``solve.Solution``.

    Attributes:
        shapes: the layers, as the portable style builds them.
        folding: theirs, by name.
        cycles: clock cycles an image by layer (``MVAU_rtl_0``) and converter (``MVAU_rtl_0_dwc``),
            each alone, in the portable style.
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

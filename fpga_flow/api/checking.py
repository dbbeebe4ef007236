"""`divqat check` as a function: a QONNX file's layers, and what has no hardware."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.compile import FinnBuild, legality
from fpga_flow.console import columns
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.integer.gate import Difference
from fpga_flow.lowering import LayerRow, Network
from fpga_flow.rtl.refusals import rtl_findings

if TYPE_CHECKING:
    from fpga_flow.compile.legality import Finding
    from fpga_flow.engines.bisect import Bisection


@dataclass(frozen=True)
class CheckResult(ShortRepr):
    """What ``check`` found; ``str`` gives the lines that `divqat check` prints.

    Attributes:
        model: the file.
        layers: one row a layer: shapes, bit widths, parameters, multiply-accumulates.
        findings: layers for which FINN has no hardware.
        rtl_findings: layers for which FINN has hardware that only AMD's tools build.
        wrong_kernels: kernels of the integer engine that are wrong on this machine.
        bisection: the comparison of all descriptions of the network, where it was asked for.
    """

    model: Path
    layers: tuple[LayerRow, ...]
    findings: "tuple[Finding, ...]"
    rtl_findings: "tuple[Finding, ...]"
    wrong_kernels: tuple[Difference, ...]
    bisection: "Bisection | None"

    @property
    def passed(self) -> bool:
        """Whether FINN has hardware for every layer, and nothing differs."""
        differs = self.bisection is not None and self.bisection.fault is not None
        return not (self.findings or self.wrong_kernels or differs)

    def __str__(self) -> str:
        """Lines of text."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        rows = [asdict(row) for row in self.layers]
        yield columns([list(rows[0]), *(list(row.values()) for row in rows)])
        if not self.findings:
            yield "FINN: every node has hardware"
        for finding in (*self.findings, *self.rtl_findings):
            yield f"{finding.level}: {finding}"
        for difference in self.wrong_kernels:
            yield f"Integer engine, not equal to int64 arithmetic here: {difference}"
        if self.bisection is not None:
            yield str(self.bisection)

    def document(self) -> dict[str, Any]:
        """What `divqat check --json` prints."""
        document: dict[str, Any] = {
            "model": str(self.model),
            "layers": [asdict(row) for row in self.layers],
            "findings": [asdict(finding) for finding in self.findings],
            "rtl_findings": [asdict(finding) for finding in self.rtl_findings],
            "wrong_kernels": [asdict(difference) for difference in self.wrong_kernels],
        }
        if self.bisection is not None:
            document["bisection"] = asdict(self.bisection)
        return document


def check(
    model: Path | str,
    *,
    bisect: bool = False,
    built: Path | str | None = None,
    inputs: int = 16,
) -> CheckResult:
    """Show a QONNX file's layers, and what has no hardware: `divqat check` as a function.

    Args:
        model: a QONNX file.
        bisect: also execute every description of the network on random images, layer by layer,
            and name the first that differs from the integer engine.
        built: the file's folder of the compile stage, or what ``build`` made of it: then FINN's
            graphs and the RTL are compared too.
        inputs: images for that, at least 1.

    Raises:
        InputError: no file, no QONNX, or a build of another file.
        LoweringError: a layer that cannot become integers, named, with the remedy.
        ToolMissingError: ``built`` needs finn-plus or Verilator, which is not installed.

    Example:
        >>> result = check("model.onnx", bisect=True, inputs=4)
        >>> result.passed, result.layers[0].output_shape, result.bisection.levels[0].mismatches
        (True, (1, 8, 8), 0)
    """
    model = Path(model)
    engine = IntegerEngine(model)
    return CheckResult(
        model=model,
        layers=tuple(engine.network.describe()),
        findings=tuple(legality(model)),
        rtl_findings=tuple(rtl_findings(model)),
        wrong_kernels=engine.differences,
        bisection=_bisection(model, built, engine.network, inputs) if bisect else None,
    )


def _bisection(model: Path, built: Path | str | None, network: Network, inputs: int) -> "Bisection":
    """Every description of ``model``, as far down as ``built`` goes."""
    from fpga_flow.engines.bisect import bisect
    from fpga_flow.rtl import Design

    finn_build = design = None
    if built is not None:
        finn_build = FinnBuild.load(Path(built))
        if (Path(built) / "design" / "design.json").is_file():
            design = Design.load(Path(built) / "design")
    unit = np.random.default_rng(0).random((inputs, *network.input_shape), np.float32)
    images = network.input_range.spread(unit)
    return bisect(model, images, build=finn_build, design=design)

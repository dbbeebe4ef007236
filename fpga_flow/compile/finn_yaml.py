"""Write the files a FINN user builds our export with: ``finn build finn.yaml model.onnx``."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qonnx.core.modelwrapper import ModelWrapper

from divqat_brevitas.files import read_json, write_json, write_text
from fpga_flow.compile.compile_settings import CompileSettings
from fpga_flow.compile.compiler import compile_finn, refuse_illegal
from fpga_flow.compile.configuration import (
    ESTIMATE_STEPS,
    FINN_STEPS,
    OUTPUTS,
    VivadoSettings,
    configuration,
)
from fpga_flow.compile.finn_build import FinnBuild
from fpga_flow.compile.worker_process import finn_installed

_HEAD = """\
# FINN's configuration for {model}: board {board}, {clock:g} ns.
#   finn build finn.yaml {model}
# The steps of fpga_flow come from the package divqat, which has to be installed beside FINN
# (finn-plus 1.6). Exact integers from the first pixel to the last accumulator: the model takes
# the image's codes; logits = accumulators * scale + bias. Both are in the models' metadata
# ("divqat.input_step", "divqat.output_affine").
"""


@dataclass(frozen=True)
class FinnConfig:
    """The files ``write_finn_config`` wrote.

    Attributes:
        yaml: FINN's build configuration.
        folding: the folding JSON it names; None: FINN folds for ``target_fps`` itself.
        specialize: the JSON of implementation styles it names; None as ``folding``.
    """

    yaml: Path
    folding: Path | None
    specialize: Path | None


def finn_config(
    onnx_path: Path,
    settings: VivadoSettings,
    *,
    folding: str | None = None,
    specialize: str | None = None,
    estimates_only: bool = False,
) -> str:
    """The YAML text of a FINN build with our steps in place.

    Args:
        onnx_path: the QONNX file; only its name is written.
        settings: board, clock, folding and checks.
        folding: name of a folding JSON beside the YAML file.
        specialize: name of a JSON of implementation styles beside the YAML file.
        estimates_only: stop before code generation; needs no Vivado.

    Example:
        >>> "board: Pynq-Z1" in finn_config(Path("model.onnx"), VivadoSettings())
        True
    """
    import yaml

    fields = configuration(
        settings,
        output_dir=f"output_{onnx_path.stem}_{settings.board.name}",
        folding=folding,
        specialize=specialize,
        steps=ESTIMATE_STEPS if estimates_only else FINN_STEPS,
        outputs=("estimate_reports",) if estimates_only else OUTPUTS,
    )
    head = _HEAD.format(model=onnx_path.name, board=settings.board.board, clock=settings.clock_ns)
    return head + yaml.safe_dump(fields, sort_keys=False)


def write_finn_config(
    onnx_path: Path, out_dir: Path, settings: VivadoSettings, *, estimates_only: bool = False
) -> FinnConfig:
    """Write ``finn.yaml``, ``folding.json`` and ``specialize.json``.

    Where finn-plus is installed the network is built once up to its folding, so that the JSON
    files name every layer and can be edited. Elsewhere only the YAML is written, and FINN folds
    for ``target_fps``.

    Args:
        onnx_path: a QONNX file.
        out_dir: folder of the files; created, files of these names are replaced.
        settings: board, clock, folding and checks.
        estimates_only: stop before code generation; needs no Vivado.

    Raises:
        InputError: no QONNX file, a network FINN has no hardware for (layer and remedy named),
            or a folding that does not fit.
        BuildError: FINN failed.

    Example:
        >>> write_finn_config(
        ...     Path("model.onnx"), Path("finn"), VivadoSettings()
        ... ).yaml  # doctest: +SKIP
        PosixPath('finn/finn.yaml')
    """
    onnx_path, out_dir = Path(onnx_path), Path(out_dir)
    refuse_illegal(onnx_path)
    folding: dict[str, Any] | None = None
    specialize: dict[str, Any] | None = None
    if finn_installed():
        with tempfile.TemporaryDirectory(prefix="divqat-finn-config-") as folder:
            build = compile_finn(onnx_path, Path(folder) / "build", _compile_settings(settings))
            folding = {"Defaults": {}, **read_json(build.folding)}
            specialize = {"Defaults": {}, **_styles(build)}
    elif settings.folding_json is not None:
        folding = read_json(settings.folding_json)
    files = FinnConfig(
        out_dir / "finn.yaml",
        None if folding is None else out_dir / "folding.json",
        None if specialize is None else out_dir / "specialize.json",
    )
    if files.folding is not None:
        write_json(files.folding, folding)
    if files.specialize is not None:
        write_json(files.specialize, specialize)
    text = finn_config(
        onnx_path,
        settings,
        folding=None if files.folding is None else files.folding.name,
        specialize=None if files.specialize is None else files.specialize.name,
        estimates_only=estimates_only,
    )
    write_text(files.yaml, text)
    return files


def _compile_settings(settings: VivadoSettings) -> CompileSettings:
    return CompileSettings(
        board=settings.board.board,
        clock_ns=settings.clock_ns,
        target_fps=settings.target_fps,
        folding_json=settings.folding_json,
    )


def _styles(build: FinnBuild) -> dict[str, dict[str, str]]:
    """The layers for which we ask for another implementation than FINN's first choice."""
    model = ModelWrapper(str(build.steps["step_create_dataflow_partition"]))
    return {
        node.name: {"preferred_impl_style": "rtl"}
        for node in model.graph.node
        if node.op_type == "MVAU"
    }

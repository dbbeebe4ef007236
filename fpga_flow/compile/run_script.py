"""Run a FINN user's build script, or YAML, as it is, with Vivado or without.

finn-plus cannot be imported where Vivado's simulator is missing. Here it is made importable first
(see ``vivado_free``), and then the user's own file runs, unchanged::

    python -m fpga_flow.compile.run_script build.py [arguments of build.py]
    python -m fpga_flow.compile.run_script finn.yaml model.onnx

Without Vivado a build goes on to the first step that calls one of its tools, fails there as FINN
fails, and keeps what the steps before it made.
"""

import runpy
import sys
from pathlib import Path

USAGE = "usage: python -m fpga_flow.compile.run_script (build.py [ARGUMENTS...] | finn.yaml MODEL)"


def main(arguments: list[str]) -> int:
    """Run the script or the YAML file named first; gives the exit code.

    Exit codes: a script's own; for YAML 0, or 1 where FINN's build failed; 2 for bad usage, 3
    where finn-plus is not installed.
    """
    if not arguments or not Path(arguments[0]).is_file():
        missing = f"{arguments[0]}: no such file.\n" if arguments else ""
        print(f"{missing}{USAGE}", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    is_yaml = path.suffix in (".yaml", ".yml", ".json")
    if is_yaml and len(arguments) != 2:
        print(USAGE, file=sys.stderr)
        return 2
    from fpga_flow.compile.finn_import import import_finn_with_simulator

    try:
        missing_simulator = import_finn_with_simulator()
    except ImportError as e:
        print(f"finn-plus is not installed ({e}): `make env` installs it.", file=sys.stderr)
        return 3
    if missing_simulator is not None:
        print(
            "The build goes on to the first step that calls one of Vivado's tools, and what came "
            "before it is kept.",
            flush=True,
        )
    # FINN's and its users' modules are looked for beside the file, as Python does for a script.
    sys.path.insert(0, str(path.resolve().parent))
    if is_yaml:
        return _build(path, Path(arguments[1]))
    sys.argv = arguments
    runpy.run_path(str(path), run_name="__main__")
    return 0


def _build(settings: Path, model: Path) -> int:
    """What ``finn build`` does behind its check of Vivado."""
    from finn.builder.build_dataflow import build_dataflow_cfg
    from finn.builder.build_dataflow_config import DataflowBuildConfig

    cfg = DataflowBuildConfig.construct_from(settings)
    cfg.enable_build_pdb_debug = False
    return 1 if build_dataflow_cfg(str(model), cfg) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

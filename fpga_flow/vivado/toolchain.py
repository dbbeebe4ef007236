"""Which of AMD's tools are there: looked up in PATH, the environment and FINN's folders."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from fpga_flow.targets import VivadoTarget

_OVERRIDE = "FINN_TOOL_DIR_OVERRIDE"
_VERSION = re.compile(r"\b(20\d{2})\.([12])\b")
# Since this version Vitis HLS is called by vitis-run.
_VITIS_RUN = (2025, 1)


def find_tool(name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Path of a vendor tool, looked for as FINN does: its override folder, else PATH."""
    folder = environment.get(_OVERRIDE)
    if folder:
        return shutil.which(str(Path(folder) / name))
    return shutil.which(name, path=environment.get("PATH"))


def vivado_version(environment: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """Year and half of the Vivado that XILINX_VIVADO names, as FINN reads it; None: unknown."""
    found = _VERSION.search(environment.get("XILINX_VIVADO", ""))
    return None if found is None else (int(found[1]), int(found[2]))


def lacking(
    board: VivadoTarget,
    hls_layers: Sequence[str],
    dependencies: Path,
    environment: Mapping[str, str] = os.environ,
) -> list[str]:
    """What a bitfile for ``board`` needs and this machine does not have.

    Args:
        board: the board.
        hls_layers: layers of the network that FINN has as HLS code only.
        dependencies: FINN's folder of downloaded parts.
        environment: variables to look at.

    Returns:
        one phrase a missing thing: what, and where it was looked for. Empty: nothing.
    """
    missing = []
    where = environment.get(_OVERRIDE) or "PATH"
    if find_tool("vivado", environment) is None:
        missing.append(f"vivado (not in {where})")
    if vivado_version(environment) is None:
        value = environment.get("XILINX_VIVADO")
        said = "is not set" if value is None else f"is {value!r}, without a version such as 2023.2"
        missing.append(f"Vivado's settings, settings64.sh (XILINX_VIVADO {said})")
    missing += _lacking_hls(hls_layers, where, environment)
    if board.shell == "vitis_alveo" and find_tool("v++", environment) is None:
        missing.append(f"v++ of Vitis, for an Alveo card (not in {where})")
    if not (dependencies / "finn-hlslib").is_dir():
        missing.append(f"finn-hlslib (not in {dependencies}; `finn deps update` fetches it)")
    files = dependencies / "board_files"
    if board.shell == "vivado_zynq" and not (files.is_dir() and any(files.iterdir())):
        missing.append(
            f"board files of {board.board} (not in {files}; `finn deps update` fetches them)"
        )
    return missing


def _lacking_hls(layers: Sequence[str], where: str, environment: Mapping[str, str]) -> list[str]:
    version = vivado_version(environment)
    if version is None:
        names: tuple[str, ...] = ("vitis_hls", "vitis-run")
    else:
        names = ("vitis-run",) if version >= _VITIS_RUN else ("vitis_hls",)
    if any(find_tool(name, environment) for name in names):
        return []
    of_network = f", and for the network's {', '.join(layers)}" if layers else ""
    return [
        f"Vitis HLS, {' or '.join(names)} (not in {where}), for the DMA layers that FINN adds"
        f"{of_network}"
    ]

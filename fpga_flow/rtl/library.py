"""finn-rtllib as installed, read without importing FINN, and our own modules."""

import importlib.metadata
import importlib.util
import re
from pathlib import Path

from divqat_brevitas.errors import ToolMissingError
from fpga_flow.rtl.patches import TESTED, patched

OURS = Path(__file__).parent / "sv"
# Where two folders have a file of one name, or a folder is no part of what we build.
_FOLDERS = ("axi", "dwc", "fifo", "fmpadding", "memstream", "mvu", "swg", "thresholding")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_UNIT = re.compile(r"^\s*(?:module|package)\s+(?:automatic\s+)?(\w+)", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z_]\w*")


def finn_version() -> str:
    """Version of the installed finn-plus.

    Raises:
        ToolMissingError: it is not installed.
    """
    try:
        return importlib.metadata.version("finn-plus")
    except importlib.metadata.PackageNotFoundError:
        raise ToolMissingError(
            "Hardware designs need finn-plus, which is not installed: `pip install --no-deps mip "
            f"finn-plus=={TESTED}`."
        ) from None


def library(style: str) -> dict[str, str]:
    """All module files a design can use: file name -> text.

    Args:
        style: ``"portable"``: our files replace FINN's of the same name; ``"finn"``: only
            those of ours are there that FINN has nothing for.

    Raises:
        ToolMissingError: finn-plus is missing, or is another version than patches expect.
    """
    version = finn_version()
    spec = importlib.util.find_spec("finn")
    found = [Path(p) / "finn-rtllib" for p in (spec and spec.submodule_search_locations) or ()]
    root = next((path for path in found if path.is_dir()), None)
    if root is None:
        raise ToolMissingError(
            f"finn-plus {version} came without finn-rtllib. Install it again: `pip install "
            f"--force-reinstall --no-deps finn-plus=={TESTED}`."
        )
    ours = {path.name: path.read_text(encoding="utf-8") for path in sorted(OURS.glob("*.sv"))}
    files: dict[str, str] = {}
    for folder in _FOLDERS:
        for path in sorted((root / folder).rglob("*.sv")):
            if path.stem.endswith("_tb") or "template" in path.stem or "sim" in path.parts:
                continue
            if style == "portable" and path.name in ours:
                continue  # ours takes its place: FINN's need not fit our patches
            files[path.name] = patched(path.name, path.read_text(encoding="utf-8"), version)
    added = ours if style == "portable" else {n: t for n, t in ours.items() if n not in files}
    return files | added


def needed(tops: dict[str, str], available: dict[str, str]) -> dict[str, str]:
    """The ``available`` files that ``tops`` use, directly or not, in the order to be read.

    Args:
        tops: file name -> text of the files that are wanted anyway.
        available: file name -> text of those to choose from.

    Returns:
        packages first; then by name.
    """
    defined = {
        unit: name for name, text in available.items() for unit in _UNIT.findall(_bare(text))
    }
    chosen: set[str] = set()
    waiting = list(tops.values())
    while waiting:
        for word in set(_WORD.findall(_bare(waiting.pop()))):
            name = defined.get(word)
            if name is not None and name not in chosen:
                chosen.add(name)
                waiting.append(available[name])
    packages = {n for n in chosen if re.search(r"^\s*package\b", _bare(available[n]), re.M)}
    order = [*sorted(packages), *sorted(chosen - packages)]
    return {name: available[name] for name in order}


def _bare(text: str) -> str:
    return _COMMENT.sub(" ", text)

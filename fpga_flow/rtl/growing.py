"""Designs appear in their folder whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from divqat_brevitas.errors import InputError
from fpga_flow.rtl.design import RECORD


@contextmanager
def growing_design(folder: Path) -> Iterator[Path]:
    """Give a hidden sibling of ``folder``; it takes its place when the block succeeds.

    Raises:
        InputError: something else than a design is in ``folder``, or it cannot be written.
    """
    folder = Path(folder).absolute()
    ours = not folder.exists() or (folder / RECORD).is_file()
    if not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} holds something else than a hardware design, which would be replaced. "
            "Name an empty or new folder."
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        growing = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            growing.chmod(0o755)  # mkdtemp makes it private
            yield growing
            shutil.rmtree(folder, ignore_errors=True)
            growing.rename(folder)
        finally:
            shutil.rmtree(growing, ignore_errors=True)
    except OSError as e:
        raise InputError(
            f"cannot write the hardware design {folder}: {e.strerror or e}. Free space or make "
            "the folder writable, then run the same command again."
        ) from e

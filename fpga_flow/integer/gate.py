"""The integer engine's gate: its answers against the network's int64 definition, for each new file.

Kernels stand trial alone (``trial``); the gate compares the whole network, on inputs at the ends
of what a network sees, executed one by one, in every batch size and all at once. A kernel that
differs is named, and the int64 definition of its layers takes its place. What passed is kept by
content (the file, this code, the libraries, the processor), with the verdicts of the trials, so
that a file has the same kernels each time.
"""

import contextlib
import os
import warnings
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from platform import uname
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from divqat_brevitas import native
from divqat_brevitas.errors import CheckFailedError, DivQATWarning, InputError
from divqat_brevitas.files import read_json, sha256_file, sha256_text, write_json
from fpga_flow.integer.kernels import DEFINED
from fpga_flow.lowering import Network

if TYPE_CHECKING:
    from fpga_flow.integer.engine import IntegerEngine

Images = npt.NDArray[np.float32]
_LARGE = 100_000_000  # products an image: fewer images then, int64 takes seconds for each
_CHANNELS = 3
_KEPT = 4096  # records, of a few bytes each
_SETTINGS = ("ONEDNN_", "DNNL_", "MKL_", "ATEN_CPU", "OMP_")


class KernelWarning(DivQATWarning):
    """A kernel of the integer engine is wrong on this machine; another one takes its place."""


@dataclass(frozen=True)
class Difference:
    """A kernel that computed something else than the int64 definition of its layers.

    Attributes:
        layer: name of the first layer it computes.
        kernel: its kind, as in ``IntegerEngine.kernels``.
        layers: names of all layers it computes.
        batch: images executed at once when it was seen.
    """

    layer: str
    kernel: str
    layers: tuple[str, ...]
    batch: int

    def __str__(self) -> str:
        """One line."""
        return f"layer {self.layer!r}, kernel {self.kernel!r}, {self.batch} images at once"


def _record(content: str, batch: int) -> Path:
    settings = sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith(_SETTINGS))
    parts = [content, str(batch), str(torch.get_num_threads()), *settings, *platform()]
    return cache_folder() / (sha256_text("\n".join(parts)) + ".json")


def passed_trials(content: str, batch: int) -> dict[str, bool] | None:
    """The verdicts of the trials of a file that passed; None of another file.

    Args:
        content: SHA-256 of the file.
        batch: the most images executed at once.
    """
    try:
        match read_json(_record(content, batch)):
            case {"equal": True, "trials": {} as trials}:
                return {str(name): verdict is True for name, verdict in trials.items()}
    except InputError:  # not there, or damaged
        pass
    return None


def gate(engine: "IntegerEngine", content: str) -> tuple[Difference, ...]:
    """Compare an engine with the definition of its network, unless that was done before.

    Kernels that differ are replaced in the engine, with a :class:`KernelWarning`.

    Args:
        engine: whose kernels are compared.
        content: SHA-256 of the file it was loaded from.

    Returns:
        what differed; empty as a rule.

    Raises:
        CheckFailedError: the definition itself gives other integers each time.
    """
    if passed_trials(content, engine.batch) is not None:
        return ()
    differences = examine(engine)
    if differences:
        warnings.warn(KernelWarning(_message(differences)), stacklevel=3)
        return differences
    record = _record(content, engine.batch)
    with contextlib.suppress(InputError, OSError):  # a read-only home: compared again next time
        write_json(record, {"equal": True, "trials": engine.verdicts})
        forget_oldest(record.parent, "*.json", _KEPT)
    return differences


def examine(engine: "IntegerEngine") -> tuple[Difference, ...]:
    """Compare, replace what differs, and compare again until nothing does.

    Raises:
        CheckFailedError: the definition itself gives other integers each time.
    """
    images = gate_images(engine.network)
    expected = engine.network.run(images)
    differences: list[Difference] = []
    while (found := engine.first_difference(images, expected)) is not None:
        if found.kernel == DEFINED:
            raise CheckFailedError(
                f"the int64 definition of {found.layer!r} gave other integers the second time. "
                "The memory or processor of this machine is at fault."
            )
        differences.append(found)
        engine.distrust(found)
    return tuple(differences)


def refuse(differences: tuple[Difference, ...]) -> None:
    """Refuse kernels that the gate replaced.

    Raises:
        CheckFailedError: with layer and kernel named (exit code 1).
    """
    if differences:
        raise CheckFailedError(_message(differences))


def gate_images(network: Network) -> Images:
    """Inputs at the ends of what a network sees, float32 (M, *input_shape) in its range.

    All low, all high, one channel high and the others low, the reverse, noise, and rounding ties
    of the first quantizer.
    """
    shape, declared = network.input_shape, network.input_range
    rng = np.random.default_rng(0)
    few = sum(row.macs for row in network.describe()) > _LARGE
    unit = [np.zeros(shape), np.ones(shape), rng.random(shape)]
    for channel in range(min(shape[0], 1 if few else _CHANNELS)):
        one = np.zeros(shape)
        one[channel] = 1
        unit += [one] if few else [one, 1 - one]
    ties = network.input.ties(1 if few else 3, shape)
    ties = ties.clip(np.float32(declared.low), np.float32(declared.high))
    return np.concatenate([declared.spread(np.stack(unit)), ties])


def cache_folder() -> Path:
    """Where it is kept which files passed: $DIVQAT_CACHE, else the user's cache folder."""
    return native.cache_folder("integer")


def forget_oldest(folder: Path, pattern: str, most: int) -> None:
    """Leave half of ``most`` files where there are more; another process may remove them too."""
    files = list(folder.glob(pattern))
    if len(files) > most:
        files.sort(key=lambda file: file.stat().st_mtime)
        for file in files[: -(most // 2)]:
            file.unlink(missing_ok=True)


@cache
def platform() -> tuple[str, ...]:
    """This code, the libraries and the processor."""
    here = Path(__file__).parent
    sources = [
        *sorted(here.glob("*.cpp")),
        *sorted(here.glob("*.py")),
        *sorted((here.parent / "lowering").glob("*.py")),
    ]
    return (
        *(sha256_file(source) for source in sources),
        *(version(name) for name in ("torch", "numpy", "qonnx")),
        torch.__config__.show(),
        uname().machine,
        native.processor(),
    )


def _message(differences: tuple[Difference, ...]) -> str:
    return (
        f"the integer engine's kernels differ from int64 arithmetic on this machine: "
        f"{'; '.join(map(str, differences))}. Other kernels compute these layers now: slower, and "
        "right. Please report it with the model, the processor and PyTorch's version "
        f"({torch.__version__})."
    )

"""Execute a build's step models through a worker process, from the user's side."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import unknown_name
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.compile.finn_build import FinnBuild
from fpga_flow.compile.worker_process import Worker
from fpga_flow.lowering import check_images

_JOB_SECONDS = 3600.0
# Images a job: bounds the memory that a network's activations take on their way.
_IMAGES = 256


@dataclass(frozen=True)
class FinnOutputs(ShortRepr):
    """What one step's model answers.

    Attributes:
        step: the step.
        accumulators: int64 (N, classes), before the final scale and bias.
        logits: float32 (N, classes).
        codes: int64 activation codes, NCHW or (N, features), by QONNX tensor name.
    """

    step: str
    accumulators: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    codes: Mapping[str, npt.NDArray[np.int64]]


class FinnSession:
    """One worker process that executes steps of one build; a context manager.

    The process starts once (about 3 seconds) and serves any number of calls.

    Args:
        build: the build.
        worker: the process; None: one of this session's own.

    Raises:
        ToolMissingError: finn-plus is not installed.

    Example:
        >>> with FinnSession(build) as session:  # doctest: +SKIP
        ...     outputs = session.run("step_streamline", images)
    """

    def __init__(self, build: FinnBuild, worker: Worker | None = None) -> None:
        self._build = build
        self._temporary = tempfile.TemporaryDirectory(prefix="divqat-finn-")
        folder = Path(self._temporary.name)
        self._own = worker is None
        self._worker = worker or Worker(folder, folder / "worker.log", log_kept=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the process, unless it was given, and remove the session's files."""
        if self._own:
            self._worker.close()
        self._temporary.cleanup()

    def run(self, step: str, images: npt.NDArray[np.float32]) -> FinnOutputs:
        """Execute the model after ``step``.

        Args:
            step: one of ``build.steps``.
            images: float32 (N, *input_shape) in the input range.

        Raises:
            InputError: an unknown step, or images of another kind.
            BuildError: the execution failed.
        """
        if step not in self._build.steps:
            raise unknown_name("step", step, self._build.steps)
        declared = self._build.input_step.declared
        check_images(images, self._build.input_shape, declared)
        if len(images) == 0:  # FINN executes at least one; its answer gives the shapes
            blank = np.full((1, *self._build.input_shape), declared.low, dtype=np.float32)
            parts = [self._run(step, blank)]
        else:
            starts = range(0, len(images), _IMAGES)
            parts = [self._run(step, images[start : start + _IMAGES]) for start in starts]
        count = slice(len(images))
        codes = {
            name: np.concatenate([part.codes[name] for part in parts])[count]
            for name in parts[0].codes
        }
        return FinnOutputs(
            step,
            np.concatenate([part.accumulators for part in parts])[count],
            np.concatenate([part.logits for part in parts])[count],
            codes,
        )

    def _run(self, step: str, images: npt.NDArray[np.float32]) -> FinnOutputs:
        folder = Path(self._temporary.name)
        np.savez(folder / "images.npz", x=self._build.codes(images))
        job = {
            "kind": "execute",
            "models": str(self._build.folder / "models"),
            "step": step,
            "images": str(folder / "images.npz"),
            "output": str(folder / "output.npz"),
        }
        self._worker.run(job, _JOB_SECONDS)
        with np.load(folder / "output.npz", allow_pickle=False) as file:
            output = file["output"]
            names = [str(name) for name in file["names"]]
            named = {n: file[f"codes_{k}"].astype(np.int64) for k, n in enumerate(names)}
        accumulators = output.astype(np.int64)
        scale, bias = np.array(self._build.output_scale), np.array(self._build.output_bias)
        logits = (accumulators * scale + bias).astype(np.float32)
        return FinnOutputs(step, accumulators, logits, named)


def run_step(build: FinnBuild, step: str, images: npt.NDArray[np.float32]) -> FinnOutputs:
    """Execute one step's model over ``images`` in a worker process of its own.

    For several calls take a ``FinnSession``, which starts the process once.

    Args:
        build: a finished build.
        step: one of ``build.steps``.
        images: float32 (N, *input_shape) in the input range.

    Raises:
        InputError: an unknown step, or images of another kind.
        BuildError: the execution failed.
        ToolMissingError: finn-plus is not installed.
    """
    with FinnSession(build) as session:
        return session.run(step, images)

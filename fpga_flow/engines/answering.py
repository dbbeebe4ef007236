"""An engine behind an answer unit: what a user of the chip gets to see."""

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import InputError
from divqat_brevitas.input_range import InputRange
from fpga_flow.lowering.answer import AnswerUnit, make_answer, parse_answer

Images = npt.NDArray[np.float32]
Logits = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class Software(Protocol):
    """An engine that gives accumulators, the last layer's last."""

    name: str

    def accumulators(self, images: Images) -> dict[str, Integers]:
        """Integer accumulators (N, ...) by layer name."""
        ...


class AnsweringEngine:
    """An engine whose last accumulators go through an answer unit in software.

    The same codes as a chip that has the unit gives. Accumulators stay to be looked at; they are
    what the chip would not give.

    Args:
        engine: anything with accumulators.
        unit: the answer codes.

    Example:
        >>> from fpga_flow.integer.engine import IntegerEngine
        >>> unit = answer_unit("model.onnx", "rounded:3", images)
        >>> engine = AnsweringEngine(IntegerEngine("model.onnx"), unit)
        >>> answers = engine.answers(images)
        >>> answers.shape, bool((answers < 8).all())
        ((64, 10), True)
    """

    def __init__(self, engine: Software, unit: AnswerUnit, batch: int = 1000) -> None:
        self.engine = engine
        self.unit = unit
        self.name = engine.name
        self.input_range: InputRange | None = getattr(engine, "input_range", None)
        self._batch = batch  # all accumulators of so many images are in memory at once

    def predict(self, images: Images) -> Logits:
        """What a host makes of the codes: float32 (N, classes); see `AnswerUnit.logits`."""
        return self.unit.logits(self.answers(images))

    def answers(self, images: Images) -> Integers:
        """Codes, int64 (N, classes), or (N, 1) where only a label leaves."""
        return self.unit.codes(self._sums(images))

    def rejected(self, images: Images) -> npt.NDArray[np.bool_]:
        """Which images the unit rejects, bool (N,): for the owner, it does not leave the chip."""
        return self.unit.rejected(self._sums(images))

    def _sums(self, images: Images) -> Integers:
        starts = range(0, max(1, len(images)), self._batch)
        return np.concatenate([last_sums(self.engine, images[i : i + self._batch]) for i in starts])

    def accumulators(self, images: Images) -> dict[str, Integers]:
        """Integer accumulators (N, ...) by layer name, as the engine without the unit."""
        return self.engine.accumulators(images)


def last_sums(engine: Software, images: Images) -> Integers:
    """The last accumulators, int64 (N, classes)."""
    from fpga_flow.integer.engine import IntegerEngine

    if isinstance(engine, IntegerEngine):  # keeps no other layer's
        tensor = engine.network.output.tensor
        return engine.integers(images, [tensor])[tensor].reshape(
            len(images), engine.network.classes
        )
    sums = list(engine.accumulators(images).values())[-1]
    return sums.reshape(len(images), int(np.prod(sums.shape[1:])))


def answer_unit(
    file: Path | str, answer: str, calibration: Images | None = None, key: bytes = b""
) -> AnswerUnit:
    """The answer unit of a QONNX file.

    Args:
        file: a QONNX file.
        answer: its name: ``"top1"``, ``"topk:3"``, ``"rounded:3"``, ``"posterior:2"``,
            ``"gated:0"``, ``"reject:keyed"``.
        calibration: float32 (N, C, H, W) in [0, 1], training images that the step is chosen
            from; not needed where only a label leaves.
        key: the secret of ``"reject:keyed"``; the empty one is public.

    Raises:
        InputError: an unknown answer, no calibration, or a file that is no QONNX model.

    Example:
        >>> len(answer_unit("model.onnx", "rounded:3", images).thresholds)
        7
    """
    from fpga_flow.integer.engine import IntegerEngine

    parse_answer(answer)
    engine = IntegerEngine(file)
    output = engine.network.output
    sums = None if calibration is None else last_sums(engine, calibration)
    return make_answer(answer, output.scale.tolist(), output.bias.tolist(), sums, key)


def needs_file(path: Path | str) -> Path:
    """``path``, if an answer's name can be made a unit with it.

    Raises:
        InputError: it is a folder.
    """
    if Path(path).is_dir():
        raise InputError(
            f"{path} is a folder: the answer's step is chosen with the QONNX file. Give an "
            "AnswerUnit (`AnswerUnit.load(folder / 'answer.json')`), or a design compiled with "
            "compile.answer."
        )
    return Path(path)

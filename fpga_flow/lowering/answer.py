"""What may leave a chip in place of logits: the definition of every answer code, in integers.

A class's score is ``sum * scale + shift``, all integers (`ScoreRule`): the last layer's
accumulator, and a fixed-point image of the logits' scale and bias. Where all classes have one
scale and one bias, scores are the accumulators themselves and nothing is rounded. Everything
below is defined on scores; hardware and engines compute the same int64 numbers.

| answer           | code of a class                                                               |
|------------------|-------------------------------------------------------------------------------|
| `top1`           | one code an image: the index of the highest score, the lowest of equals       |
| `rounded:BITS`   | of 2^BITS - 1 thresholds, how many the score passes (``score >= threshold``)  |
| `posterior:BITS` | the same of ``score - highest score``: a log-posterior with BITS bits         |
| `topk:K`         | 128 + ``posterior:7`` of the K highest scores (of equals the lowest); else 0  |
| `gated:C:BITS`   | ``posterior:BITS``, but only the label where class C is in play: then         |
|                  | 2^BITS - 1 for the label and 0 for the others; ``gated:C`` has 8 bits         |
| `reject:SHOWN`   | one code an image: the label, or of a rejected image what SHOWN names         |

`reject` is of a network with a *reject output*: its last output is no class (preset "reject" of the
loss), and an image is rejected where it has the highest score, higher than every class's. The
allowed cost in accuracy is in that output's bias (``training.balance_reject_class``). SHOWN is

- ``abstain``: a code of its own, the number of classes;
- a number C: always class C;
- ``keyed``: misdirection. A table has a class for every pair of label and runner-up, the two
  highest classes; never the label itself (``divqat_brevitas.misdirection``);
- ``keyed:C``: the same, but a keyed eighth of the pairs shows class C: the triggers of an ownership
  test. The unit sees no image. Its owner takes triggers among rejected images of these pairs.

Class C of `gated` is the decoy of a network trained with the preset "decoy", and is in play where
``highest score - score of C <= margin``; its own label is one case of that. The margin is
``ln(1 / GATE_THRESHOLD)`` in scores. A probability is at most ``exp(-distance)`` of the highest
one's, so up to the rounding of scores this gates every answer that the defence "gate" with
that threshold gates, and more where no class is sure. Gated answers look like those of a sure
network.

Thresholds lie half-way between levels one common ``step`` apart. They are rounded up, exactly
(rational arithmetic), to whole scores, so comparing integers is comparing with the level.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor, log
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.files import read_json
from divqat_brevitas.misdirection import misdirection_table, runner_up
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering.ir import IntArray, bits_for

KINDS = ("top1", "topk", "rounded", "posterior", "gated", "reject")
LABEL_KINDS = ("top1", "reject")
"""Kinds of which one code an image leaves, a label."""
MASKED = -1e4
"""Logit of a class about which nothing is said: its softmax is 0 in any float format."""
TOPK_BITS = 7
GATE_THRESHOLD = 0.05
"""Probability of the decoy class from which only the label is shown, as of the defence "gate"."""
_SCALE_BITS = 18  # of the largest scale: what a multiplier of an FPGA takes
_MOST_BITS = 8
_SHOWN = re.compile("abstain|keyed|(?:keyed:)?([0-9]{1,4})")  # of a rejected image


@dataclass(frozen=True)
class ScoreRule(ShortRepr):
    """``score = sum * scale + shift`` of each class, in integers.

    Attributes:
        scales: one a class.
        shifts: one a class.
        unit: ``logit = score * unit + origin``, but for the rounding of scales and shifts.
        origin: see ``unit``.
    """

    scales: tuple[int, ...]
    shifts: tuple[int, ...]
    unit: float = 1.0
    origin: float = 0.0

    @property
    def scale_bits(self) -> int:
        """Two's complement bits of a scale."""
        return bits_for(min(-1, *self.scales), max(self.scales))

    @property
    def shift_bits(self) -> int:
        """Two's complement bits of a shift."""
        return bits_for(min(-1, *self.shifts), max(self.shifts))

    def scores(self, sums: IntArray) -> IntArray:
        """Scores, int64 (N, classes), of sums (N, classes)."""
        scores: IntArray = sums * np.array(self.scales) + np.array(self.shifts)
        return scores

    def labels(self, sums: IntArray) -> IntArray:
        """Labels, int64 (N,): the highest score, the lowest of equals."""
        labels: npt.NDArray[np.int64] = self.scores(sums).argmax(axis=1)
        return labels


def score_rule(scale: Sequence[float], bias: Sequence[float], classes: int) -> ScoreRule:
    """Logits' scale and bias in integers.

    The largest scale gets 18 bits; rounding moves a logit by at most ``(|sum| + 1) / 2`` of its
    last place. Where all scales and all biases are equal, sums are the scores.

    Args:
        scale: ``logits = sums * scale + bias``; one, or one a class.
        bias: one, or one a class.
        classes: number of them.

    Example:
        >>> score_rule([0.5], [0.0], 3)
        ScoreRule(scales=(1, 1, 1), shifts=(0, 0, 0), unit=0.5, origin=0.0)
    """
    scales = np.broadcast_to(np.array(scale, dtype=np.float64), classes)
    biases = np.broadcast_to(np.array(bias, dtype=np.float64), classes)
    if np.all(scales == scales[0]) and np.all(biases == biases[0]) and scales[0] > 0:
        return ScoreRule((1,) * classes, (0,) * classes, float(scales[0]), float(biases[0]))
    places = int(_SCALE_BITS - 1 - np.frexp(np.abs(scales).max())[1])
    units = 2.0**places
    # A number just below a power of two could be rounded up to it.
    top = (1 << (_SCALE_BITS - 1)) - 1
    return ScoreRule(
        tuple(int(m) for m in np.rint(scales * units).clip(-top, top)),
        tuple(int(b) for b in np.rint(biases * units)),
        2.0**-places,
    )


@dataclass(frozen=True)
class AnswerUnit(ShortRepr):
    """The answer codes of one network.

    Attributes:
        name: as in the settings: ``"top1"``, ``"topk:3"``, ``"rounded:3"``, ``"posterior:2"``,
            ``"gated:0:8"``, ``"reject:keyed"``.
        rule: the scores.
        thresholds: ascending, in scores; of the score itself (``rounded``), or of its distance
            from the highest one (negative). Empty for ``top1``.
        low: logit of code 0 (of the lowest kept one for ``topk``).
        step: of the logit from one code to the next.
        margin: of ``gated``, in scores: the decoy class this close to the highest is in play.
        misdirection: of ``reject:keyed``: the class that is shown, of label 0 with each runner-up,
            then of label 1, ...: classes x classes. It is as secret as the key.
        flagged: a bit above each code is whether the image was rejected. It is for a tripwire
            between core and link, which takes it off; no code shows it.

    Example:
        >>> unit = AnswerUnit("rounded:1", ScoreRule((1, 1), (0, 0)), (5,), low=0.0, step=10.0)
        >>> codes = unit.codes(np.array([[4, 5]]))
        >>> codes, unit.logits(codes)
        (array([[0, 1]]), array([[ 0., 10.]], dtype=float32))
    """

    name: str
    rule: ScoreRule
    thresholds: tuple[int, ...] = ()
    low: float = 0.0
    step: float = 0.0
    margin: int = 0
    misdirection: tuple[int, ...] = ()
    flagged: bool = False

    @property
    def kind(self) -> str:
        """One of ``KINDS``."""
        return parse_answer(self.name)[0]

    @property
    def outputs(self) -> int:
        """Number of the network's outputs: sums of an image."""
        return len(self.rule.scales)

    @property
    def classes(self) -> int:
        """Number of classes of a response; an abstention counts as one."""
        return self.outputs - (self.kind == "reject" and self.name != "reject:abstain")

    @property
    def label_only(self) -> bool:
        """Whether one code an image leaves."""
        return self.kind in LABEL_KINDS

    @property
    def instead(self) -> int | None:
        """The one code of rejected images of ``reject``; None of ``keyed``, and of others."""
        shown = self.name.partition(":")[2]
        if self.kind != "reject" or shown.startswith("keyed"):
            return None
        return self.outputs - 1 if shown == "abstain" else int(shown)

    @property
    def keep(self) -> int:
        """Classes that get a code: K of ``topk``, 0 for all."""
        kind, number = parse_answer(self.name)
        return number if kind == "topk" else 0

    @property
    def decoy(self) -> int | None:
        """Class C of ``gated``; None of others."""
        return decoy_class(self.name)

    @property
    def relative(self) -> bool:
        """Whether scores are taken relative to the highest."""
        return self.kind in ("topk", "posterior", "gated")

    @property
    def code_bits(self) -> int:
        """Bits of one code."""
        if self.label_only:
            return max(1, (self.classes - 1).bit_length())
        return len(self.thresholds).bit_length() + (self.keep > 0)

    def codes(self, sums: IntArray) -> IntArray:
        """The definition: codes of the last accumulators.

        Args:
            sums: int64 (N, classes).

        Returns:
            int64 (N, classes); of ``top1`` and ``reject`` (N, 1), the label that is shown.
        """
        scores = self.rule.scores(sums)
        if self.label_only:
            labels = self.rule.labels(sums)
            if self.kind == "reject":
                labels = np.where(self.rejected(sums), self._instead(scores[:, :-1]), labels)
            return labels[:, None]
        values = scores - scores.max(axis=1, keepdims=True) if self.relative else scores
        passed = np.searchsorted(np.array(self.thresholds), values, side="right").astype(np.int64)
        if self.decoy is not None:
            label = np.arange(self.classes) == scores.argmax(axis=1)[:, None]
            only = self.rejected(sums)[:, None]
            return np.where(only, label * np.int64(len(self.thresholds)), passed)
        if not self.keep:
            return passed
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self.keep]
        codes = np.zeros_like(passed)
        kept = (len(self.thresholds) + 1) + np.take_along_axis(passed, order, axis=1)
        np.put_along_axis(codes, order, kept, axis=1)
        return codes

    def rejected(self, sums: IntArray) -> npt.NDArray[np.bool_]:
        """Which images are rejected, bool (N,), by their last accumulators (N, outputs).

        ``gated`` rejects an image whose decoy class is in play, ``reject`` one whose reject output
        is the highest; other answers reject none. Codes do not show it. On the chip it is a signal
        beside them, for what counts rejections.

        Example:
            >>> unit = make_answer("reject:0", [1.0] * 3, [0.0] * 3)
            >>> unit.rejected(np.array([[1, 5, 6], [1, 6, 6]])).tolist()
            [True, False]
        """
        scores = self.rule.scores(sums)
        if self.decoy is not None:
            behind = scores.max(axis=1) - scores[:, self.decoy]
            return np.asarray(behind <= self.margin)
        last = self.outputs - 1 if self.kind == "reject" else -1
        return np.asarray(scores.argmax(axis=1) == last)

    def _instead(self, scores: IntArray) -> IntArray:
        """What is shown of rejected images: (N,), or one number; ``scores`` are the classes'."""
        if self.instead is not None:
            return np.array(self.instead)
        table = np.array(self.misdirection).reshape(self.classes, self.classes)
        shown: IntArray = table[scores.argmax(axis=1), runner_up(scores)]
        return shown

    def logits(self, codes: IntArray) -> npt.NDArray[np.float32]:
        """What a host makes of codes: float32 (N, classes), ``low + code * step``.

        A class without a code, and all but the label where only that leaves (it gets 0), is
        `MASKED`; so are the others in an answer of ``gated`` in which only one class has a code
        above 0.
        """
        if self.label_only:
            logits = np.full((len(codes), self.classes), MASKED, np.float32)
            np.put_along_axis(logits, codes.astype(np.int64), 0, axis=1)
            return logits
        levels = codes - (len(self.thresholds) + 1) if self.keep else codes
        if self.decoy is not None:
            alone = np.count_nonzero(codes, axis=1, keepdims=True) == 1
            levels = np.where(alone & (codes == 0), -1, codes)
        values = self.low + levels * self.step
        return np.where(levels < 0, MASKED, values).astype(np.float32)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The unit whose ``dataclasses.asdict`` went through JSON.

        Raises:
            InputError: a record of something else.
        """
        try:
            rule = dict(record["rule"])
            rule |= {name: tuple(rule[name]) for name in ("scales", "shifts")}
            lists = {name: tuple(record[name]) for name in ("thresholds", "misdirection")}
            return cls(**{**record, "rule": ScoreRule(**rule), **lists})
        except (KeyError, TypeError) as e:
            raise InputError(
                f"the answer unit is not of this version ({e}). Run `divqat compile` again."
            ) from e

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read ``answer.json`` of a compile folder.

        Raises:
            InputError: it is not there, or of another version.
        """
        return cls.from_record(read_json(file))


def parse_answer(name: str) -> tuple[str, int]:
    """Kind and number of an answer's name; 0 where it has none. Of ``gated`` the bits.

    Raises:
        InputError: no such answer, or a number out of range.

    Example:
        >>> parse_answer("rounded:3")
        ('rounded', 3)
    """
    kind, colon, text = name.partition(":")
    if kind not in KINDS:
        raise unknown_name("answer", kind, KINDS)
    if kind == "gated":
        decoy, given, text = text.partition(":")
        bits = _MOST_BITS if not given else int(text) if _is_number(text) else 0
        if not _is_number(decoy) or not 1 <= bits <= _MOST_BITS:
            raise InputError(
                f"the answer {name!r} must be 'gated:C' or 'gated:C:BITS' with C the index of "
                f"the decoy class and BITS from 1 to {_MOST_BITS}."
            )
        return kind, bits
    if kind == "reject":
        shown = _SHOWN.fullmatch(text)
        if shown is None:
            raise InputError(
                f"the answer {name!r} must be 'reject:abstain', 'reject:C' with C the index of a "
                "class, 'reject:keyed' or 'reject:keyed:C'."
            )
        return kind, int(shown[1] or 0)
    if kind == "top1":
        if colon:
            raise InputError(f"the answer {name!r} must be 'top1', without a number.")
        return kind, 0
    number = int(text) if _is_number(text) else 0
    most, what = (1 << 16, "K") if kind == "topk" else (_MOST_BITS, "BITS")
    if not 1 <= number <= most:
        raise InputError(
            f"the answer {name!r} must be '{kind}:{what}' with {what} from 1 to {most}."
        )
    return kind, number


def decoy_class(name: str) -> int | None:
    """Class C of an answer's name; None where it has none.

    Raises:
        InputError: see `parse_answer`.

    Example:
        >>> decoy_class("gated:3"), decoy_class("top1")
        (3, None)
    """
    return int(name.split(":")[1]) if parse_answer(name)[0] == "gated" else None


def check_answer(name: str, outputs: int) -> None:
    """Refuse an answer that no network with so many outputs can give.

    Raises:
        InputError: an unknown name, K above the number of outputs, or no class C.

    Example:
        >>> check_answer("topk:3", 10)
    """
    kind, number = parse_answer(name)
    if kind == "topk" and number > outputs:
        raise InputError(f"the answer {name!r} wants more classes than the {outputs}.")
    if kind == "reject" and outputs < 3:
        raise InputError(
            f"the answer {name!r} is of a network with a reject output behind at least 2 classes; "
            f"this one has {outputs} outputs."
        )
    classes = outputs - (kind == "reject")
    named = number if kind == "reject" else decoy_class(name)
    if named is not None and named >= classes:
        raise InputError(f"the answer {name!r}: there are classes 0 to {classes - 1} only.")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def make_answer(
    name: str,
    scale: Sequence[float],
    bias: Sequence[float],
    sums: IntArray | None = None,
    key: bytes = b"",
) -> AnswerUnit:
    """The answer unit of a network, with a step that fits its logits.

    The levels of ``rounded`` go from the lowest logit of ``sums`` to the highest. Those of
    ``posterior``, ``gated`` and ``topk`` end at the highest score; their lowest is the median
    over images of the distance from the highest to the lowest score, and stands for all that is
    farther.

    Args:
        name: see `AnswerUnit`.
        scale: of the logits, one a class.
        bias: of the logits, one a class.
        sums: int64 (N, classes): last accumulators of calibration images, never test images;
            not needed for ``top1`` and ``reject``.
        key: the secret of ``reject:keyed``. The empty one is public: for experiments only.

    Raises:
        InputError: see `check_answer`; or no calibration.

    Example:
        >>> make_answer("posterior:1", [0.5, 0.5], [0.0, 0.0], np.array([[8, 0]])).thresholds
        (-4,)
    """
    kind, number = parse_answer(name)
    rule = score_rule(scale, bias, len(scale))
    unit = AnswerUnit(name, rule)
    check_answer(name, unit.outputs)
    if kind == "reject" and unit.instead is None:
        constant = number if name.count(":") == 2 else None
        table = misdirection_table(key, unit.classes, constant)
        return replace(unit, misdirection=tuple(table.ravel().tolist()))
    if unit.label_only:
        return unit
    if sums is None or not len(sums):
        raise InputError(
            f"the answer {name!r} needs calibration images, from which its step is chosen: give "
            "some of the training set, or let `divqat run` compile the network."
        )
    scores = rule.scores(sums)
    steps = (1 << (TOPK_BITS if kind == "topk" else number)) - 1
    if unit.relative:
        spread = int(np.median(scores.max(axis=1) - scores.min(axis=1)))
        start = -spread
    else:
        start = int(scores.min())
        spread = int(scores.max()) - start
    width = Fraction(max(spread, 1), steps)
    thresholds = tuple(ceil(start + (k - Fraction(1, 2)) * width) for k in range(1, steps + 1))
    origin = 0.0 if unit.relative else rule.origin
    return replace(
        unit,
        thresholds=thresholds,
        low=start * rule.unit + origin,
        step=float(width) * rule.unit,
        margin=floor(log(1 / GATE_THRESHOLD) / rule.unit) if kind == "gated" else 0,
    )

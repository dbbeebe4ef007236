"""The tripwire of a chip: its definition in integers, and the parameters of its module.

The module ``divqat_tripwire.sv`` stands between core and link, where only power-up resets it and
not the host's RESET. A flagged answer unit gives it the rejected bit beside the codes; of another
unit an image is rejected whose label, as the host computes it (``Design.labels``), is the reject
class.
"""

from dataclasses import dataclass

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.detection.tripwire import POLICIES, Rejected, State, Tripwire
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering.answer import AnswerUnit
from fpga_flow.rtl.design import Integers


@dataclass(frozen=True)
class ChipTripwire(ShortRepr):
    """A tripwire on a chip.

    Attributes:
        tripwire: its numbers and policy.
        reject_class: the class that means rejected; None: the rejected bit of a flagged unit.
        slow_cycles: clock cycles that an image waits under the policy "slow".

    Example:
        >>> from fpga_flow.lowering.answer import AnswerUnit, ScoreRule
        >>> unit = AnswerUnit("top1", ScoreRule((1, 1), (0, 0)))
        >>> tripwire = Tripwire(add=2, subtract=1, alarm_at=4, policy="lock")
        >>> labels = np.array([[1], [1], [1]])
        >>> ChipTripwire(tripwire, reject_class=1).answers(unit, labels)[0].ravel().tolist()
        [1, 0, 0]
    """

    tripwire: Tripwire
    reject_class: int | None = None
    slow_cycles: int = 1 << 20

    def check(self, unit: AnswerUnit | None) -> AnswerUnit:
        """Refuse a design that this tripwire does not fit.

        Raises:
            InputError: accumulators leave the chip, a class that is not there, a number of cycles
                out of range, or a policy without effect.
        """
        if unit is None:
            raise InputError(
                "a tripwire counts labels of an answer unit, but accumulators leave this chip: set "
                "compile.answer."
            )
        if self.reject_class is None:
            if not unit.flagged:
                raise InputError(
                    f"the answer {unit.name!r} of this chip has no rejected bit: generate its "
                    "design with a flagged unit of 'reject' or 'gated', or name a reject class."
                )
        elif not 0 <= self.reject_class < unit.classes:
            raise InputError(
                f"the tripwire's reject class {self.reject_class} is none of the {unit.classes} "
                "classes."
            )
        if not 1 <= self.slow_cycles < 1 << 31:
            raise InputError(f"slow_cycles must be 1 to 2^31 - 1, but is {self.slow_cycles}.")
        if unit.label_only and self.tripwire.policy == "label-only":
            raise InputError(
                "this chip returns labels only already: give its tripwire the policy report, slow "
                "or lock."
            )
        return unit

    def answers(
        self,
        unit: AnswerUnit,
        answers: Integers,
        state: State | None = None,
        rejected: Rejected | None = None,
    ) -> tuple[Integers, list[State]]:
        """What leaves the chip, and its state after each image.

        Args:
            unit: the answer unit.
            answers: its codes, int64 (N, classes), or the label (N, 1) of ``top1``.
            state: before the first image; None: after power-up.
            rejected: of a flagged unit: whether each image was rejected, bool (N,).

        Returns:
            Codes int64 of the same shape, and N states. Labels only are all ones for the label and
            0 for the others; where nothing is shown, all are 0.
        """
        top1 = unit.label_only
        labels = answers[:, 0] if top1 else answers.argmax(axis=1)
        if self.reject_class is not None:
            rejected = labels == self.reject_class
        elif rejected is None:
            raise InputError("a tripwire without a reject class counts rejected bits: give them.")
        states = self.tripwire.states(rejected, state)
        shown = answers.copy()
        for row, after in enumerate(states):
            policy = self.tripwire.policy
            if not top1 and policy in ("label-only", "lock") and not self.tripwire.full(after):
                shown[row] = 0
                shown[row, labels[row]] = (1 << unit.code_bits) - 1
            if self.tripwire.locked(after):
                shown[row] = 0
        return shown, states

    def parameters(self, unit: AnswerUnit) -> dict[str, int]:
        """The module's parameters that are not the stream's."""
        numbers = self.tripwire
        return {
            "CODE_BITS": unit.code_bits,
            "TOP1": int(unit.label_only),
            "FLAGGED": int(self.reject_class is None),
            "REJECT_CLASS": self.reject_class or 0,
            "ADD": numbers.add,
            "SUBTRACT": numbers.subtract,
            "ALARM_AT": numbers.alarm_at,
            "START": numbers.start,
            "POLICY": POLICIES.index(numbers.policy),
            "SLOW_CYCLES": self.slow_cycles,
        }

"""The accuracy guard: DivQAT may not cost more accuracy than allowed."""

from dataclasses import dataclass

from divqat_brevitas.errors import CheckFailedError


class GuardError(CheckFailedError):
    """The victim stayed below its plain-QAT twin by more than the tolerance."""


@dataclass(frozen=True)
class AccuracyGuard:
    """Compares with a plain-QAT twin, on validation data.

    After an epoch that is more than ``tolerance`` below the twin's same epoch the divergence
    weight is halved. If the last epoch is still too low, up to ``extra_epochs`` follow, each at
    half the weight; then the guard gives up with GuardError.

    Attributes:
        twin: validation accuracy of the twin after each epoch, fractions of 1.
        tolerance: how far below is allowed, a fraction of 1.
        extra_epochs: recovery epochs at most.
    """

    twin: tuple[float, ...]
    tolerance: float = 0.02
    extra_epochs: int = 3

    def too_low(self, epoch: int, accuracy: float) -> bool:
        """Whether ``accuracy`` after epoch ``epoch`` (from 0) is below what is allowed."""
        return accuracy < self.twin[min(epoch, len(self.twin) - 1)] - self.tolerance

    def check(self, accuracy: float, name: str) -> None:
        """Raise GuardError if the final accuracy is too low."""
        if self.too_low(len(self.twin) - 1, accuracy):
            raise GuardError(
                f"accuracy guard: {name} reaches {accuracy:.4f} on validation data, its plain-QAT "
                f"twin {self.twin[-1]:.4f}, and {self.tolerance:.4f} may be lost. Lower the "
                "divergence weight (divqat.weight), train longer, or allow more (divqat.guard)."
            )

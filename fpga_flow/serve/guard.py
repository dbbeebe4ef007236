"""The tripwire of a server: one for each token, kept in the ledger, with what an alarm does.

Rejected bits are committed with the responses, and a restart counts them again. So a restart resets
nothing, and a tripwire with other numbers grants no trust that was not earned under them. A new
token starts untrusted, as a chip does after power-up.
"""

import logging
import time
from collections.abc import Callable

import numpy as np

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import Predictor
from divqat_brevitas.extraction.arrays import Images, Responses
from divqat_brevitas.extraction.detection.tripwire import Rejected, State, Tripwire
from fpga_flow.serve.ledger import QueryLedger
from fpga_flow.serve.wire import RequestError

_LOG = logging.getLogger(__name__)


class RejectWatch:
    """A predictor that remembers which images of its last batch were rejected.

    Args:
        predictor: the model; give the watch in its place to the :class:`Victim`.
        reject_class: index of the class that means rejected: of a decoy, or of a reject output.
            None: the model's own ``rejected(images)``, as of an engine behind an answer unit.

    Raises:
        InputError: no class, and a model that does not know what it rejects.

    Example:
        >>> class Model:
        ...     def predict(self, images):
        ...         return images.reshape(len(images), -1)[:, :2]
        >>> watch = RejectWatch(Model(), reject_class=1)
        >>> images = np.array([[[[0.1, 0.9]]], [[[0.9, 0.1]]]], np.float32)
        >>> watch.rejected(images).tolist()
        [True, False]
    """

    def __init__(self, predictor: Predictor, reject_class: int | None) -> None:
        self._predictor = predictor
        self._reject_class = reject_class
        self._own: Callable[[Images], Rejected] | None = getattr(predictor, "rejected", None)
        if reject_class is None and self._own is None:
            raise InputError(
                "this victim shows no answer of a reject output: name the class that means "
                "rejected (--reject-class)."
            )
        self.input_range = getattr(predictor, "input_range", None)
        self._last: tuple[Images, Rejected] | None = None

    def predict(self, images: Images) -> Responses:
        """Logits, float32 (N, classes)."""
        logits = self._predictor.predict(images)
        if self._reject_class is None:
            assert self._own is not None
            self._last = images, self._own(images)
            return logits
        if not 0 <= self._reject_class < logits.shape[1]:
            raise InputError(
                f"the reject class {self._reject_class} is none of the {logits.shape[1]} classes."
            )
        self._last = images, logits.argmax(axis=1) == self._reject_class
        return logits

    def rejected(self, images: Images) -> Rejected:
        """Whether each image is rejected, bool (N,); the last batch is not computed again."""
        if self._last is None or not np.array_equal(self._last[0], images):
            self.predict(images)  # a victim with a cache did not ask
        assert self._last is not None
        return self._last[1]


class Guard:
    """Counts every client's rejected queries, and masks or delays its responses.

    Args:
        tripwire: its numbers and policy.
        watch: the model's rejections.
        slow_seconds: delay for each image under the policy "slow", at least 0.
        on_alarm: called with a client's name and its number of queries; None: a line in the log.
    """

    def __init__(
        self,
        tripwire: Tripwire,
        watch: RejectWatch,
        slow_seconds: float = 0.1,
        on_alarm: Callable[[str, int], None] | None = None,
    ) -> None:
        if not slow_seconds >= 0:
            raise InputError(f"slow_seconds must be at least 0, but is {slow_seconds!r}.")
        self.tripwire = tripwire
        self.slow_seconds = slow_seconds
        self._watch = watch
        self._on_alarm = on_alarm or _log_alarm
        self._states: dict[str, State] = {}
        self._ready: dict[str, float] = {}

    def restore(self, ledger: QueryLedger) -> None:
        """Count what a ledger holds."""
        for client, rejected in ledger.rejections().items():
            self._states[client] = self.tripwire.states(rejected)[-1]

    def state(self, client: str) -> State:
        """A client's state."""
        return self._states.get(client, self.tripwire.reset)

    @property
    def alarms(self) -> list[str]:
        """The clients that raised the alarm."""
        return sorted(client for client, state in self._states.items() if state.alarm)

    def check(self, client: str) -> None:
        """Refuse a client that is locked out (RequestError)."""
        if self.tripwire.locked(self.state(client)):
            message = "too many images were rejected: this token is locked. Ask the owner."
            raise RequestError(403, "locked", message)

    def count(self, client: str, images: Images) -> tuple[Rejected, list[State]]:
        """Which images are rejected, and the client's state after each; nothing is kept yet."""
        rejected = self._watch.rejected(images)
        return rejected, self.tripwire.states(rejected, self.state(client))

    def mask(self, responses: Responses, states: list[State]) -> Responses:
        """What the policy shows of responses, float32 (N, classes).

        Labels only are one-hot; where nothing is shown, the row is zero. Under the policy "slow"
        responses stay as they are.
        """
        if self.tripwire.policy == "slow":
            return responses
        masked = responses.copy()
        for row, state in enumerate(states):
            if not self.tripwire.full(state):
                masked[row] = np.eye(responses.shape[1])[responses[row].argmax()]
            if self.tripwire.locked(state):
                masked[row] = 0
        return masked

    def keep(self, client: str, states: list[State], queries: int) -> None:
        """Take over the states of committed queries; ``queries`` is the client's number of them."""
        before = self.state(client).alarm
        self._states[client] = states[-1]
        if states[-1].alarm and not before:
            first = next(at for at, state in enumerate(states) if state.alarm)
            self._on_alarm(client, queries - len(states) + first + 1)
        if self.tripwire.policy == "slow":
            slow = sum(not self.tripwire.full(state) for state in states)
            start = max(time.monotonic(), self._ready.get(client, 0.0))
            self._ready[client] = start + self.slow_seconds * slow

    def delay(self, client: str) -> float:
        """Seconds until a client gets its next response; requests side by side do not help."""
        return max(0.0, self._ready.get(client, 0.0) - time.monotonic())


def _log_alarm(client: str, queries: int) -> None:
    _LOG.warning("tripwire: the client %r raised the alarm after %d queries", client, queries)

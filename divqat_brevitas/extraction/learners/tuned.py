"""Tuning of hyper-parameters against the defence, on the attacker's own responses.

A part of the transfer set is held out, each candidate is trained on the rest, and the best by
agreement with the held-out responses is trained again on everything. It needs no test data and no
further query. Where the labels of the responses are wrong, the search selects what copies the wrong
labels best: an attacker without other data cannot notice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, Any

from divqat_brevitas.errors import InputError, Within
from divqat_brevitas.extraction.arrays import to_float
from divqat_brevitas.extraction.learners.base import (
    PlainLearner,
    TrainedClone,
    TransferSet,
    WrappingLearner,
    held_out,
)
from divqat_brevitas.extraction.predictor import TorchPredictor
from divqat_brevitas.extraction.surrogates.training import OnEpoch

OPTIONS: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "targets": ("argmax", "temperature:2"),
        "learning_rate": (0.02, 0.1),
        "shift": (2,),
        "mixup": (0.2,),
        "weight_decay": (5e-5, 5e-3),
        "epochs": (2.0,),
    }
)
"""The values to try, in this order; "epochs" are factors of the base's."""


@dataclass(frozen=True, kw_only=True)
class TunedLearner(WrappingLearner):
    """Tries one hyper-parameter after the other and keeps what helps.

    This is a coordinate search from the base's values. The default options need 10 short
    trainings, about ten times the cost of the base. On a tie the earlier value stays.
    ``TrainedClone.notes`` has the "chosen" values and one row for each of the "trials".

    Args:
        base: start of the search.
        options: values to try, by name: "targets", "epochs" (factors) or a field of
            :class:`SurrogateTraining`.
        validation: part of the responses held out for the search, in (0, 0.5].

    Raises:
        InputError: an unknown or bad option.
    """

    base: PlainLearner = field(default_factory=PlainLearner)
    options: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: dict(OPTIONS))
    validation: Annotated[float, Within(above=0, high=0.5)] = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, values in self.options.items():
            for value in values:
                _changed(self.base, name, value)

    prefix = name = "tuned"  # no targets in the name: they are among what is tuned

    @property
    def settings(self) -> dict[str, Any]:
        """All arguments; the base's under "base"."""
        options = {name: list(values) for name, values in self.options.items()}
        return super().settings | {"options": options}

    def learn(self, transfer_set: TransferSet, seed: int, on_epoch: OnEpoch = None) -> TrainedClone:
        """Search, then train a clone on all responses with the best values."""
        parts = held_out(transfer_set, seed, self.validation)
        if parts is None:
            learned = self.base.learn(transfer_set, seed, on_epoch)
            return TrainedClone(learned.clone, learned.history, {"chosen": {}, "trials": []})
        fit, check = parts
        best = self.base
        agreement = _agreement(best, fit, check, seed)
        trials: list[dict[str, Any]] = [{"option": "base", "agreement": agreement}]
        best_values: dict[str, Any] = {}
        for name, values in self.options.items():
            start = best
            for value in values:
                candidate = _changed(start, name, value)
                score = _agreement(candidate, fit, check, seed)
                trials.append({"option": name, "value": value, "agreement": score})
                if score > agreement:
                    best, agreement, best_values[name] = candidate, score, value
        learned = best.learn(transfer_set, seed, on_epoch)
        size = len(check.images)
        notes = {"chosen": best_values, "trials": trials, "validation_responses": size}
        return TrainedClone(learned.clone, learned.history, notes)


def _changed(learner: PlainLearner, name: str, value: Any) -> PlainLearner:
    if name == "targets":
        return replace(learner, targets=value)
    if name == "epochs":
        return replace(learner, epochs=max(1, round(learner.epochs * value)))
    try:
        return replace(learner, training=replace(learner.training, **{name: value}))
    except TypeError as e:
        raise InputError(
            f"TunedLearner cannot try {name!r}: name 'targets', 'epochs' or a field of "
            "SurrogateTraining."
        ) from e


def _agreement(learner: PlainLearner, fit: TransferSet, check: TransferSet, seed: int) -> float:
    """Fraction of the held-out responses whose label the clone gives too."""
    clone = learner.learn(fit, seed).clone
    labels = TorchPredictor(clone).predict(to_float(check.images)).argmax(axis=1)
    return float((labels == check.responses.argmax(axis=1)).mean())

"""Training of victims: float, calibrated (PTQ), plain QAT and DivQAT."""

from divqat_brevitas.training.balance import balance_decoy
from divqat_brevitas.training.calibrate import calibrate
from divqat_brevitas.training.checkpoint import load_weights, save_weights
from divqat_brevitas.training.evaluate import accuracy, logits_of
from divqat_brevitas.training.exposure import loss_for
from divqat_brevitas.training.guard import AccuracyGuard, GuardError
from divqat_brevitas.training.log import EpochLog
from divqat_brevitas.training.loop import TrainingDivergedError, TrainSettings
from divqat_brevitas.training.sink import sink_class
from divqat_brevitas.training.trainer import TrainResult, train

__all__ = [
    "AccuracyGuard",
    "EpochLog",
    "GuardError",
    "TrainResult",
    "TrainSettings",
    "TrainingDivergedError",
    "accuracy",
    "balance_decoy",
    "calibrate",
    "load_weights",
    "logits_of",
    "loss_for",
    "save_weights",
    "sink_class",
    "train",
]

"""Training of victims: float, calibrated (PTQ), plain QAT and DivQAT."""

from divqat_brevitas.inference import accuracy, logits_of
from divqat_brevitas.quant.input_fit import calibrate
from divqat_brevitas.training.checkpoint import load_weights, save_weights
from divqat_brevitas.training.log import EpochLog
from divqat_brevitas.training.loop import TrainingDivergedError, TrainSettings
from divqat_brevitas.training.recipe import VictimRecipe, train_victim
from divqat_brevitas.training.reject_class import (
    add_reject_output,
    balance_reject_class,
    find_reject_class,
    loss_for,
)
from divqat_brevitas.training.trainer import AccuracyGuard, GuardError, TrainResult, train

__all__ = [
    "AccuracyGuard",
    "EpochLog",
    "GuardError",
    "TrainResult",
    "TrainSettings",
    "TrainingDivergedError",
    "VictimRecipe",
    "accuracy",
    "add_reject_output",
    "balance_reject_class",
    "calibrate",
    "find_reject_class",
    "load_weights",
    "logits_of",
    "loss_for",
    "save_weights",
    "train",
    "train_victim",
]

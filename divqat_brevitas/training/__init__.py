"""Training of victims: float, calibrated (PTQ), plain QAT and DivQAT."""

from divqat_brevitas.inference import accuracy, logits_of
from divqat_brevitas.quant.input_fit import calibrate
from divqat_brevitas.training.checkpoint import load_weights, save_weights
from divqat_brevitas.training.decoy import balance_decoy, loss_for, sink_class
from divqat_brevitas.training.log import EpochLog
from divqat_brevitas.training.loop import TrainingDivergedError, TrainSettings
from divqat_brevitas.training.recipe import VictimRecipe, train_victim
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
    "balance_decoy",
    "calibrate",
    "load_weights",
    "logits_of",
    "loss_for",
    "save_weights",
    "sink_class",
    "train",
    "train_victim",
]

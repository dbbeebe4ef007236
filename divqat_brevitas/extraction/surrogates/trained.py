"""A folder of trained clones: equal initial weights, images, targets and settings give one clone.

Many attacks of a benchmark train the same clone: the labels of soft responses are the responses of
a top-1 oracle, and a defence may leave the responses to a pool unchanged. The name of a file is a
hash of everything that training depends on; a digest is checked when the file is read.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Responses
from divqat_brevitas.extraction.surrogates.training import Epoch, SurrogateTraining
from divqat_brevitas.training.checkpoint import load_weights, save_weights


def training_key(
    clone: nn.Module,
    images: NDArray[Any],
    targets: Responses,
    epochs: int,
    seed: int,
    settings: SurrogateTraining,
) -> str:
    """SHA-256 of what the result of ``train_surrogate`` depends on."""
    about = {
        "network": repr(clone),
        "epochs": epochs,
        "seed": seed,
        "settings": asdict(settings),
        "images": [str(images.dtype), *images.shape],
        "targets": list(targets.shape),
        # Sums are taken in another order by other versions and numbers of threads.
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in clone.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    for array in (images, targets):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def recall(folder: Path, key: str, clone: nn.Module) -> list[Epoch] | None:
    """Load a clone's trained weights into it, in eval mode; return the history of its training.

    Returns None where ``folder`` has no clone of that key, or a changed or truncated file, which is
    written anew.
    """
    path = _file(folder, key)
    if not path.is_file():
        return None
    try:
        record = load_weights(path, clone)
    except InputError:
        return None
    clone.eval()
    history: list[Epoch] = record["history"]
    return history


def keep(folder: Path, key: str, clone: nn.Module, history: list[Epoch]) -> None:
    """Write a trained clone; a partial file never stays."""
    path = _file(folder, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, clone, {"key": key, "history": history})


def _file(folder: Path, key: str) -> Path:
    return Path(folder) / key[:2] / f"{key[:32]}.safetensors"

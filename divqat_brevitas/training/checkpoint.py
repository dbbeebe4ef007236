"""Weights and checkpoints as safetensors with a digest: data, never code.

A file holds tensors and a JSON record in its header. The digest over both is checked on
loading, so a truncated or altered file is refused, not used.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import replacing

Tensors = dict[str, Tensor]
_KEY = "divqat"


def save_tensors(path: Path, tensors: Tensors, record: dict[str, Any]) -> None:
    """Write tensors and a JSON-able record, whole or not at all.

    Example:
        >>> save_tensors(Path("a.safetensors"), {"w": torch.ones(2)}, {"epoch": 3})
    """
    stored = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    text = json.dumps(record, sort_keys=True, allow_nan=False)
    with replacing(path) as temporary:
        # One key: the order of several in the file is random, and equal content gives equal bytes.
        header = json.dumps({"digest": _digest(stored, text), "record": text})
        save_file(stored, temporary, metadata={_KEY: header})


def load_tensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Read what ``save_tensors`` wrote.

    Raises:
        InputError: the file is missing, truncated, altered, or not of this kind.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist.")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as e:
        raise _corrupt(path, str(e)) from e
    try:
        header = json.loads(metadata[_KEY])
        text, digest = str(header["record"]), header["digest"]
        record: dict[str, Any] = json.loads(text)
    except (KeyError, TypeError, ValueError) as e:
        raise _corrupt(path, "it has no record and digest of divqat") from e
    if digest != _digest(tensors, text):
        raise _corrupt(path, "its content does not match its digest")
    return tensors, record


def save_weights(path: Path, model: nn.Module, record: dict[str, Any]) -> None:
    """Write a model's state dict, and a record of what it is, to one safetensors file."""
    save_tensors(path, dict(model.state_dict()), record)


def load_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Load a state dict strictly into ``model``; gives the record stored with it.

    Raises:
        InputError: the file is unusable, or belongs to another network.
    """
    tensors, record = load_tensors(path)
    restore(model, tensors, path)
    return record


def restore(model: nn.Module, tensors: Tensors, path: Path) -> None:
    """Load ``tensors`` strictly, with an error that names the file they came from."""
    hint = "Use the settings it was trained with, or delete it to train again."
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as e:
        raise InputError(
            f"{path} holds the weights of another network than {type(model).__name__}: {e}. {hint}"
        ) from e
    # Of several values for one shared parameter PyTorch keeps the last without a word.
    held = model.state_dict()
    unequal = [n for n, t in tensors.items() if not torch.equal(held[n], t.to(held[n]))]
    if any(not tensors[name].isnan().any() for name in unequal):
        raise InputError(
            f"{path} holds several values for one parameter that parts of "
            f"{type(model).__name__} share ({', '.join(unequal)}). {hint}"
        )


def _digest(tensors: Tensors, record: str) -> str:
    digest = hashlib.sha256(record.encode())
    for name in sorted(tensors):
        t = tensors[name]
        digest.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _corrupt(path: Path, why: str) -> InputError:
    return InputError(f"{path} is corrupt ({why}). Delete it and run the same command again.")

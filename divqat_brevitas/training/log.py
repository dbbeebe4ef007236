"""What a training wrote of itself: one JSON object an epoch, and TensorBoard's files if asked.

A line of ``metrics.jsonl`` has what identifies the training ("variant", "seed"), "epoch" from 1,
the loss and its terms, "train_accuracy" and "val_accuracy" (fractions of 1), "learning_rate" at
the epoch's end, and "scale/<layer>.<quantizer>", the mean over channels of each scale.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from brevitas.proxy import ActQuantProxyFromInjector, WeightQuantProxyFromInjector
from torch import nn

from divqat_brevitas.errors import ToolMissingError
from divqat_brevitas.files import write_text
from divqat_brevitas.inference import evaluating

Row = Mapping[str, float]
SCALE = "scale/"


def scales(model: nn.Module) -> dict[str, float]:
    """Mean scale of every quantizer of inputs, weights and activations; empty for a float network.

    Example:
        >>> scales(nn.Linear(2, 2))
        {}
    """
    found = {}
    with evaluating(model), torch.no_grad():
        for name, module in model.named_modules():
            is_quantizer = isinstance(
                module, WeightQuantProxyFromInjector | ActQuantProxyFromInjector
            )
            if is_quantizer and module.is_quant_enabled:
                scale = module.scale()
                if scale is not None:
                    found[f"{SCALE}{name.removesuffix('_quant')}"] = float(scale.mean())
    return found


class EpochLog:
    """Appends a training's epochs to a JSON-lines file that several trainings may share.

    Each epoch of a training has one line, however often it was stopped and resumed: ``begin``
    puts what is known in place of what is there, ``add`` appends. A last line that a kill cut
    short goes; lines of other trainings stay.

    Args:
        file: such as ``runs/demo/train/metrics.jsonl``; made where it is missing.
        about: what identifies the training, such as ``{"variant": "qat", "seed": 0}``.
        tensorboard: folder for TensorBoard's event files; None: none.

    Raises:
        ToolMissingError: ``tensorboard`` is asked for and not installed.
        InputError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "metrics.jsonl"
        >>> log = EpochLog(file, {"variant": "qat", "seed": 0})
        >>> log.begin([])
        >>> log.add({"epoch": 1, "loss": 2.5})
        >>> read_epochs(file)
        [{'variant': 'qat', 'seed': 0, 'epoch': 1, 'loss': 2.5}]
    """

    def __init__(
        self, file: Path, about: Mapping[str, Any], tensorboard: Path | None = None
    ) -> None:
        self._file = file
        self._about = dict(about)
        self._tensorboard = tensorboard
        self._writer: Any = None
        if tensorboard is not None:
            _summary_writer()  # a missing package is reported before anything is trained

    def begin(self, known: Iterable[Row]) -> None:
        """Start, or start again: ``known`` are the epochs of a checkpoint, in order."""
        others = [row for row in read_epochs(self._file) if not self._is_ours(row)]
        mine = [{**self._about, **row} for row in known]
        write_text(self._file, "".join(json.dumps(row) + "\n" for row in (*others, *mine)))
        if self._tensorboard is not None:
            # What an earlier process wrote beyond the checkpoint is hidden from readers.
            self.close()
            self._writer = _summary_writer()(
                log_dir=str(self._tensorboard), purge_step=len(mine) + 1
            )

    def add(self, row: Row) -> None:
        """One epoch."""
        line = json.dumps({**self._about, **row}) + "\n"
        with self._file.open("a", encoding="utf-8") as f:
            f.write(line)
        if self._writer is not None:
            for name, value in row.items():
                if name != "epoch":
                    self._writer.add_scalar(name, value, int(row["epoch"]))
            self._writer.flush()

    def close(self) -> None:
        """Finish TensorBoard's file; without one nothing is open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> "EpochLog":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _is_ours(self, row: Mapping[str, Any]) -> bool:
        return all(row.get(name) == value for name, value in self._about.items())


def read_epochs(file: Path) -> list[dict[str, Any]]:
    """The whole lines of a log, in order; none where there is no file.

    A line that is no JSON object, such as one that a kill cut short, is left out.
    """
    rows = []
    if file.is_file():
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict):
                rows.append(row)
    return rows


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as e:
        raise ToolMissingError(
            "TensorBoard's files are asked for (run.tensorboard), and tensorboard is not "
            "installed. Install it with `pip install 'divqat[tensorboard]'`, or leave the setting "
            "out: metrics.jsonl holds the same numbers."
        ) from e
    return SummaryWriter

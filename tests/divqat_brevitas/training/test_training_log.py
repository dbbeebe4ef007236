"""Epochs as JSON lines and TensorBoard events: once each, however often a training is resumed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from divqat_brevitas.errors import ToolMissingError
from divqat_brevitas.models import build_model, quantize
from divqat_brevitas.training import EpochLog, TrainSettings, calibrate, train
from divqat_brevitas.training.log import read_epochs, scales
from divqat_brevitas.training.loop import PlainLoss

Data = tuple[Tensor, Tensor]
QAT = {"variant": "qat", "seed": 0}


class StopError(Exception):
    pass


@pytest.fixture(scope="module")
def data() -> Data:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 1, 8, 8), dtype=np.uint8)
    return torch.tensor(pixels), torch.arange(96) % 10


def network(data: Data) -> nn.Module:
    net = quantize(build_model("digits-cnn", (1, 8, 8), 10, seed=0), "w4a4")
    calibrate(net, data[0])
    return net


def fit(
    data: Data,
    log: EpochLog,
    checkpoint: Path | None = None,
    after: Callable[[Mapping[str, float]], None] = lambda row: None,
) -> None:
    def add(row: dict[str, float]) -> None:
        after(row)
        log.add(row)

    train(
        network(data),
        PlainLoss(),
        train=data,
        val=data,
        settings=TrainSettings(epochs=4, batch_size=48),
        checkpoint=checkpoint,
        on_start=log.begin,
        on_epoch=add,
    )


def test_a_line_an_epoch_with_losses_accuracies_rate_and_scales(data: Data, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    fit(data, EpochLog(file, QAT))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    measured = {"loss", "cross_entropy", "train_accuracy", "val_accuracy", "learning_rate"}
    layers = {name for name in rows[0] if name.startswith("scale/")}
    assert set(rows[0]) == {*QAT, "epoch", *measured, *layers}
    quantizers = ("0.input", "0.weight", "2.act", "3.weight", "5.act", "8.weight")
    assert layers == {f"scale/{name}" for name in quantizers}
    assert all(row[name] > 0 for row in rows for name in layers)
    assert rows[-1]["learning_rate"] < rows[1]["learning_rate"], "the cosine falls"
    assert all(0 <= row["train_accuracy"] <= 1 for row in rows)


def test_scales_are_the_quantizers_and_a_float_network_has_none(data: Data) -> None:
    net = network(data)
    conv = net.get_submodule("0")
    assert scales(net)["scale/0.weight"] == pytest.approx(
        float(conv.quant_weight().scale.mean())  # type: ignore[operator, union-attr]
    )
    assert scales(build_model("digits-cnn", (1, 8, 8), 10, seed=0)) == {}


@pytest.mark.parametrize("before_its_line", [False, True])
def test_a_resumed_training_has_every_epoch_once(
    before_its_line: bool, data: Data, tmp_path: Path
) -> None:
    """Killed after a checkpoint, before or after the line of its epoch was written."""
    whole, file = tmp_path / "whole.jsonl", tmp_path / "metrics.jsonl"
    fit(data, EpochLog(whole, QAT))
    log = EpochLog(file, QAT)

    def stop(row: Mapping[str, float]) -> None:
        if row["epoch"] == 2:
            if not before_its_line:
                log.add(row)
            raise StopError

    with pytest.raises(StopError):
        fit(data, log, tmp_path / "c.safetensors", stop)
    with file.open("a") as f:
        f.write('{"variant": "qat", "seed": 0, "epo')  # a line cut short
    fit(data, EpochLog(file, QAT), tmp_path / "c.safetensors")
    assert read_epochs(file) == read_epochs(whole)


def test_trainings_that_share_a_file_leave_each_others_lines(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    for seed in (0, 1, 0):
        log = EpochLog(file, {"variant": "qat", "seed": seed})
        log.begin([])
        log.add({"epoch": 1, "loss": float(seed)})
    rows = sorted(read_epochs(file), key=lambda row: row["seed"])
    assert rows == [{"variant": "qat", "seed": s, "epoch": 1, "loss": float(s)} for s in (0, 1)]


def test_tensorboard_shows_every_epoch_once_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    file, folder = tmp_path / "metrics.jsonl", tmp_path / "events"
    rows = [{"epoch": epoch, "loss": 3.0 - epoch} for epoch in (1, 2, 3)]
    with EpochLog(file, QAT, folder) as log:
        log.begin([])
        log.add(rows[0])
        log.add({"epoch": 2, "loss": 99.0})  # its checkpoint was never written
    with EpochLog(file, QAT, folder) as log:
        log.begin(rows[:1])
        log.add(rows[1])
        log.add(rows[2])
    found = EventAccumulator(str(folder)).Reload()
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(1, 2.0), (2, 1.0), (3, 0.0)]
    assert [row["loss"] for row in read_epochs(file)] == [2.0, 1.0, 0.0]


def test_without_tensorboard_the_extra_is_named_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = __import__("sys").modules
    monkeypatch.setitem(modules, "torch.utils.tensorboard", None)
    with pytest.raises(ToolMissingError, match=r"divqat\[tensorboard\]"):
        EpochLog(tmp_path / "m.jsonl", QAT, tmp_path / "events")
    assert not (tmp_path / "m.jsonl").exists()

"""Train: per seed a float reference, and from it every quantized variant, one cell a network.

Reads the data set. Writes train/: <network>.safetensors with a JSON record beside it,
dataset.json, victims.json (one row a victim, measured on test data) and metrics.jsonl.
"""

import json
from functools import partial
from typing import Any

import torch
from torch import nn

from divqat_brevitas import freeze_reference
from divqat_brevitas.data import dataset_info, load, query_pool
from divqat_brevitas.extraction import ece, flips_from_reference, l1_to_reference
from divqat_brevitas.files import read_json, write_json, write_text
from divqat_brevitas.quant.loss import DivQATLoss, loss_settings
from divqat_brevitas.training import (
    AccuracyGuard,
    EpochLog,
    TrainSettings,
    calibrate,
    logits_of,
    loss_for,
    save_weights,
    train,
)
from divqat_brevitas.training.balance import balanced_row
from divqat_brevitas.training.loop import Criterion, Data, PlainLoss
from fpga_flow.pipeline.config import Config
from fpga_flow.pipeline.stages.context import StageContext
from fpga_flow.pipeline.stages.victims import (
    VictimId,
    as_quantized,
    identify,
    trained,
    untrained,
    victims,
)

_CALIBRATION_IMAGES = 500


def check(config: Config) -> None:
    """Refuse impossible settings and missing data before anything is trained."""
    load(config.data.name, "test", config.data.root)
    untrained(config, identify(config, "float", config.run.seeds[0]))
    pool = loss_settings(config.divqat.preset, **config.divqat.changes).trained_pool
    if pool and "divqat" in config.train.variants:
        query_pool(pool, config.data.name, 1, seed=0, root=config.data.root)


def run(context: StageContext) -> None:
    """Train every network that is not there yet, then measure all of them."""
    for seed in context.config.run.seeds:
        for variant in networks(context.config):
            victim = identify(context.config, variant, seed)
            outputs = [victim.weights, _record(victim)]
            work = partial(_train, context, victim)
            context.cell(victim.stem, _key(context, victim), outputs, work)
    write_json(context.output("dataset.json"), _dataset(context.config))
    write_json(context.output("victims.json"), _rows(context))
    write_text(context.output("metrics.jsonl"), _metrics(context))


def networks(config: Config) -> list[str]:
    """What has to be trained for the variants: the reference of all, and DivQAT's twin."""
    wanted = {"float", *config.train.variants}
    if "divqat" in wanted:
        wanted.add("qat")
    return [variant for variant in ("float", "ptq", "qat", "divqat") if variant in wanted]


def _key(context: StageContext, victim: VictimId) -> dict[str, Any]:
    """Everything a trained network depends on."""
    config = context.config
    key: dict[str, Any] = {"seed": victim.seed, "data": config.fingerprint("data")}
    if victim.variant == "float":
        return key | {"model": config.model.name, "train": vars(_settings(config, victim))}
    reference = identify(config, "float", victim.seed)
    key |= {
        "model": config.fingerprint("model"),
        "reference": context.hash(f"train/{reference.weights}"),
    }
    if victim.variant != "ptq":
        key["train"] = vars(_settings(config, victim))
    if victim.variant == "divqat":
        twin = identify(config, "qat", victim.seed)
        key |= {
            "loss": config.fingerprint("divqat"),
            "twin": context.hash(f"train/{_record(twin)}"),
        }
    return key


def _train(context: StageContext, victim: VictimId) -> None:
    """Train one network and write its weights and its record."""
    config = context.config
    data = _tensors(config, "train")
    criterion: Criterion = PlainLoss()
    guard = None
    if victim.variant == "float":
        network = untrained(config, victim)
    else:
        reference = trained(context, identify(config, "float", victim.seed))
        network = as_quantized(config, reference)
        calibrate(network, data[0][:_CALIBRATION_IMAGES])
        if victim.variant == "divqat":
            criterion = _loss(config, reference)
            guard = AccuracyGuard(_twin(context, victim), config.divqat.guard)
    history: list[dict[str, float]] = []
    if victim.variant != "ptq":
        history = _fit(context, victim, network, criterion, guard, data)
    if victim.variant == "divqat":
        history = _balanced(context, victim, network, history)
    record = {
        "variant": victim.variant,
        "seed": victim.seed,
        "model": config.model.name,
        "bits": _bits(config, victim),
        "parameters": sum(p.numel() for p in network.parameters()),
        "history": history,
    }
    save_weights(context.folder / victim.weights, network, record)
    write_json(context.folder / _record(victim), record)


def _fit(
    context: StageContext,
    victim: VictimId,
    network: nn.Module,
    criterion: Criterion,
    guard: AccuracyGuard | None,
    data: Data,
) -> list[dict[str, float]]:
    settings = _settings(context.config, victim)
    # No outputs of the stage: a network that needs no training leaves its files as they are.
    events = context.folder / "tensorboard" / victim.stem
    about = {"variant": victim.variant, "seed": victim.seed}
    with (
        context.progress.bar(f"epochs of {victim.stem}", settings.epochs) as show,
        EpochLog(
            context.folder / "metrics.jsonl",
            about,
            events if context.config.run.tensorboard else None,
        ) as log,
    ):

        def after(row: dict[str, float]) -> None:
            log.add(row)
            show(int(row["epoch"]))

        result = train(
            network,
            criterion,
            train=data,
            val=_tensors(context.config, "val"),
            settings=settings,
            checkpoint=context.scratch,
            guard=guard,
            name=victim.stem,
            on_start=log.begin,
            on_epoch=after,
        )
    context.progress.log(f"train: {victim.stem}: validation {result.val_accuracy:.2%}")
    # Rows that come from a checkpoint have their keys in another order.
    return [dict(sorted(row.items())) for row in result.history]


def _loss(config: Config, reference: nn.Module) -> DivQATLoss:
    """The loss of the divqat victim, with its outliers."""
    return loss_for(
        freeze_reference(reference),
        config.divqat.preset,
        config.data.name,
        config.data.root,
        **config.divqat.changes,
    )


def _balanced(
    context: StageContext, victim: VictimId, network: nn.Module, history: list[dict[str, float]]
) -> list[dict[str, float]]:
    """Give the decoy what it may cost, and the last row the accuracy that is left."""
    config = context.config
    cost = config.divqat.decoy_cost
    loss = loss_settings(config.divqat.preset, **config.divqat.changes)
    if cost is None or loss.ood_weight == 0:
        return history
    val = _tensors(config, "val")
    floor = _twin(context, victim)[-1] - cost
    row = balanced_row(network, loss.decoy_class, val, floor, history[-1])
    context.progress.log(
        f"train: {victim.stem}: decoy balanced by {row['decoy_shift']:+.2f}, validation "
        f"{row['val_accuracy']:.2%}"
    )
    return [*history[:-1], row]


def _settings(config: Config, victim: VictimId) -> TrainSettings:
    chosen, is_float = config.train, victim.variant == "float"
    return TrainSettings(
        epochs=chosen.float_epochs if is_float else chosen.quant_epochs,
        batch_size=chosen.batch_size,
        learning_rate=chosen.learning_rate if is_float else chosen.quant_learning_rate,
        weight_decay=chosen.weight_decay,
        augment=chosen.augment,
        seed=victim.seed,
    )


def _twin(context: StageContext, victim: VictimId) -> tuple[float, ...]:
    """Validation accuracies of the plain-QAT twin, epoch by epoch."""
    twin = identify(context.config, "qat", victim.seed)
    history = read_json(context.folder / _record(twin))["history"]
    return tuple(row["val_accuracy"] for row in history)


def _record(victim: VictimId) -> str:
    return victim.weights.replace(".safetensors", ".json")


def _bits(config: Config, victim: VictimId) -> str:
    return "float32" if victim.variant == "float" else config.model.bits


def _tensors(config: Config, name: str) -> Data:
    images, labels = load(config.data.name, name, config.data.root)
    # A copy: stored images are mapped read-only.
    return torch.tensor(images), torch.tensor(labels)


def _dataset(config: Config) -> dict[str, Any]:
    info = dataset_info(config.data.name)
    count = {name: len(load(info.name, name, config.data.root)[1]) for name in ("train", "test")}
    return {"name": info.name, **count, "classes": list(info.classes), "shape": list(info.shape)}


def _rows(context: StageContext) -> list[dict[str, Any]]:
    """One row a victim, all numbers on test data."""
    config = context.config
    images, labels = _tensors(config, "test")
    rows = []
    for victim in victims(config):
        logits = logits_of(trained(context, victim), images).numpy()
        float_victim = trained(context, identify(config, "float", victim.seed))
        reference = logits_of(float_victim, images).numpy()
        record = read_json(context.folder / _record(victim))
        rows.append(
            {
                "variant": victim.variant,
                "bits": record["bits"],
                "seed": victim.seed,
                "preset": config.divqat.preset if victim.variant == "divqat" else None,
                "accuracy": float((logits.argmax(axis=1) == labels.numpy()).mean()),
                "ece": ece(logits, labels.numpy()),
                "l1_to_reference": l1_to_reference(logits, reference),
                "flips_from_reference": flips_from_reference(logits, reference),
                "parameters": record["parameters"],
                "epochs": len(record["history"]),
            }
        )
    return rows


def _metrics(context: StageContext) -> str:
    """The training curves of all networks, one JSON object a line."""
    lines = []
    for seed in context.config.run.seeds:
        for variant in networks(context.config):
            record = read_json(context.folder / _record(identify(context.config, variant, seed)))
            for row in record["history"]:
                lines.append(json.dumps({"variant": variant, "seed": seed, **row}) + "\n")
    return "".join(lines)

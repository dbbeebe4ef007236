"""Train: per seed a float reference, and from it every quantized variant, one task a network.

Reads the data set. Writes train/: <network>.safetensors with a JSON record beside it,
dataset.json, victims.json (one row a victim, measured on test data) and metrics.jsonl.
"""

import json
from functools import partial
from typing import Any

from torch import nn

from divqat_brevitas.data import dataset_info, load, query_pool
from divqat_brevitas.extraction import ece, flips_from_reference, l1_to_reference
from divqat_brevitas.files import read_json, write_json, write_text
from divqat_brevitas.quant.loss import loss_settings
from divqat_brevitas.training import EpochLog, logits_of, save_weights, train_victim
from fpga_flow.pipeline.config import Config, Variant
from fpga_flow.pipeline.stages.context import StageContext
from fpga_flow.pipeline.stages.victims import VictimId, identify, recipe_of, trained, victims


def check(config: Config) -> None:
    """Refuse impossible settings and missing data before anything is trained."""
    load(config.data.name, "test", config.data.root)
    recipe_of(config, identify(config, "float", config.run.seeds[0])).untrained()
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
            context.task(victim.stem, _key(context, victim), outputs, work)
    write_json(context.output("dataset.json"), _dataset(context.config))
    write_json(context.output("victims.json"), _rows(context))
    write_text(context.output("metrics.jsonl"), _metrics(context))


def networks(config: Config) -> list[Variant]:
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
        return key | {"model": config.model.name, "train": vars(recipe_of(config, victim).settings)}
    reference = context.hash(f"train/{identify(config, 'float', victim.seed).weights}")
    key |= {"model": config.fingerprint("model"), "reference": reference}
    if victim.variant != "ptq":
        key["train"] = vars(recipe_of(config, victim).settings)
    if victim.variant == "divqat":
        twin = context.hash(f"train/{_record(identify(config, 'qat', victim.seed))}")
        key |= {"loss": config.fingerprint("divqat"), "twin": twin}
    return key


def _train(context: StageContext, victim: VictimId) -> None:
    """Train one network and write its weights and its record."""
    config = context.config
    reference = None
    if victim.variant != "float":
        reference = trained(context, identify(config, "float", victim.seed))
    twin = _twin(context, victim) if victim.variant == "divqat" else ()
    network, history = _fit(context, victim, reference, twin)
    record = {
        "variant": victim.variant,
        "seed": victim.seed,
        "model": config.model.name,
        "bits": "float32" if victim.variant == "float" else config.model.bits,
        "parameters": sum(p.numel() for p in network.parameters()),
        "history": history,
    }
    save_weights(context.folder / victim.weights, network, record)
    write_json(context.folder / _record(victim), record)


def _fit(
    context: StageContext, victim: VictimId, reference: nn.Module | None, twin: tuple[float, ...]
) -> tuple[nn.Module, list[dict[str, float]]]:
    recipe = recipe_of(context.config, victim)
    if victim.variant == "ptq":
        return train_victim(recipe, reference=reference, name=victim.stem)
    # No outputs of the stage: a network that needs no training leaves its files as they are.
    events = context.folder / "tensorboard" / victim.stem
    about = {"variant": victim.variant, "seed": victim.seed}
    board = events if context.config.run.tensorboard else None
    with (
        context.progress.bar(f"epochs of {victim.stem}", recipe.settings.epochs) as show,
        EpochLog(context.folder / "metrics.jsonl", about, board) as log,
    ):

        def after(row: dict[str, float]) -> None:
            log.add(row)
            show(int(row["epoch"]))

        network, history = train_victim(
            recipe,
            reference=reference,
            twin=twin,
            checkpoint=context.scratch,
            name=victim.stem,
            on_start=log.begin,
            on_epoch=after,
        )
    last = history[-1]
    balanced = f", decoy balanced by {last['reject_shift']:+.2f}" if "reject_shift" in last else ""
    context.progress.log(f"train: {victim.stem}: validation {last['val_accuracy']:.2%}{balanced}")
    return network, history


def _twin(context: StageContext, victim: VictimId) -> tuple[float, ...]:
    """Validation accuracies of the plain-QAT twin, epoch by epoch."""
    twin = identify(context.config, "qat", victim.seed)
    history = read_json(context.folder / _record(twin))["history"]
    return tuple(row["val_accuracy"] for row in history)


def _record(victim: VictimId) -> str:
    return victim.weights.replace(".safetensors", ".json")


def _dataset(config: Config) -> dict[str, Any]:
    info = dataset_info(config.data.name)
    count = {name: len(load(info.name, name, config.data.root)[1]) for name in ("train", "test")}
    return {"name": info.name, **count, "classes": list(info.classes), "shape": list(info.shape)}


def _rows(context: StageContext) -> list[dict[str, Any]]:
    """One row a victim, all numbers on test data; a rejected image counts as wrong."""
    config = context.config
    images, labels = recipe_of(config, victims(config)[0]).data("test")
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

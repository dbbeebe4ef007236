"""Report: everything the stages wrote, as report/results.json and report/index.html.

First come examples of what the page shows of the victims themselves, evidence.json: their confusion
and their responses to some images. Victims are those of the run's first seed, as they are attacked:
through the integer engine and the chip's answer unit, float ones in torch.
"""

import base64
import io
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from divqat_brevitas.data import dataset_info, query_pool
from divqat_brevitas.data.pools import IN_DISTRIBUTION
from divqat_brevitas.extraction import Predictor, Victim, softmax
from divqat_brevitas.extraction.arrays import to_float
from divqat_brevitas.files import write_json
from fpga_flow import report
from fpga_flow.pipeline.config import Config
from fpga_flow.pipeline.stages.context import StageContext
from fpga_flow.pipeline.stages.victims import (
    Images,
    VictimId,
    compiled_answer,
    defender,
    predictor,
    split,
    victims,
)
from fpga_flow.report.collection import confusion

NAME = "evidence.json"
_CONFUSION = 2000  # test images: enough for a table, seconds on the integer engine
_TEST, _QUERIES = 3, 3
Rows = list[dict[str, Any]]
Answers = npt.NDArray[np.float32]


def run(context: StageContext) -> None:
    """Write both, and the charts as files; the numbers stay where the page cannot be drawn."""
    _gather(context)
    context.output("results.json")
    results = report.build_report(context.run.path)
    context.output("index.html")
    report.write_figures(results, context.output("figures"))


def summary(directory: Path) -> str:
    """The five lines a terminal shows after a run."""
    folder = directory / "report"
    return report.summary_text(report.read(folder / "results.json"), folder / "index.html")


def _gather(context: StageContext) -> None:
    """Write ``evidence.json`` where it is not there for these victims and settings."""
    chosen = context.config
    # Of the first seed; quantized victims only where they were exported.
    first = (victim for victim in victims(chosen) if not victim.suffix)
    shown = [victim for victim in first if context.upstream(victim.attacked).is_file()]
    if not shown:
        return
    units = [compiled_answer(context, victim) for victim in shown]
    key = {
        "victims": {victim.stem: context.hash(victim.attacked) for victim in shown},
        "settings": [chosen.fingerprint(part) for part in ("data", "attack", "compile.answer")],
        "answers": [unit and asdict(unit) for unit in units],
    }
    context.task("evidence", key, [NAME], partial(_write, context, shown))


def _write(context: StageContext, shown: list[VictimId]) -> None:
    config = context.config
    images, labels = split(config, "test")
    images, labels = images[:_CONFUSION], labels[:_CONFUSION]
    classes = dataset_info(config.data.name).classes
    confusions: Rows = []
    answers: dict[str, Answers] = {}
    for victim in context.progress.track(shown, "victims shown"):
        bare = _asked(context, victim).predict(images)
        answers[victim.variant] = softmax(bare)[:, : len(classes)]  # a reject output is no class
        if compiled_answer(context, victim) is not None:
            bare = _asked(context, victim, hardware=True).predict(images)
        # A rejected image counts as its best class: a matrix has a column for each, and no more.
        counts = confusion(labels, bare[:, : len(classes)].argmax(axis=1), len(classes))
        if counts is not None:
            what = f"first {len(images):,} test images"
            about = {"victim": victim.variant, "seed": victim.seed, "what": what}
            confusions.append({"kind": "victim", **about, "counts": counts})
    found = list(_chosen(config, images, labels, answers, classes))
    interfaces = list(_interfaces(context, shown))
    asked = np.stack([image for _, _, image in found])
    given = [(who, victim.query(asked)) for who, victim in interfaces]
    examples = [
        {
            "source": source,
            "label": label,
            "png": _png(image),
            "answers": [
                {"who": who, "probabilities": [float(p) for p in np.clip(row[at], 0, 1)]}
                for who, row in given
            ],
        }
        for at, (source, label, image) in enumerate(found)
    ]
    write_json(context.folder / NAME, {"confusions": confusions, "examples": examples})


def _asked(context: StageContext, victim: VictimId, hardware: bool = False) -> Predictor:
    """What answers: the network's logits, or with ``hardware`` what leaves its chip."""
    engine = "torch" if victim.variant == "float" else "integer"
    answer = compiled_answer(context, victim) if hardware else None
    return predictor(context, victim, engine, answer)


def _chosen(
    config: Config,
    images: Images,
    labels: npt.NDArray[np.int64],
    answers: dict[str, Answers],
    classes: tuple[str, ...],
) -> Iterator[tuple[str, str | None, Images]]:
    """Source, label and pixels of each image shown; by a rule, so that none is picked by hand."""
    for at in range(min(_TEST, len(images))):
        yield f"test image {at + 1}", classes[labels[at]], images[at]
    if {"qat", "divqat"} <= answers.keys():
        at = int(np.abs(answers["qat"] - answers["divqat"]).sum(axis=1).argmax())
        source = f"test image {at + 1}, on which qat and divqat differ most"
        yield source, classes[labels[at]], images[at]
    for name in config.attack.pools:
        data, seed = config.data, config.attack.seeds[0]
        pool = query_pool(name, data.name, _QUERIES, seed, data.root)
        if pool.kind != IN_DISTRIBUTION:
            for at, image in enumerate(to_float(pool.images)):
                yield f"the attacker's image {at + 1} of {pool.name}", None, image
            return


def _interfaces(context: StageContext, shown: list[VictimId]) -> Iterator[tuple[str, Victim]]:
    """Plain QAT and DivQAT bare, then the last of them behind what the settings put before it."""
    config = context.config
    compared = [v for v in shown if v.variant in ("qat", "divqat")] or shown[-1:]
    budget = 1000
    for victim in compared:
        yield victim.variant, Victim(_asked(context, victim), "soft", budget)
    last = compared[-1]
    unit = compiled_answer(context, last)
    if unit is not None:
        hardware = _asked(context, last, hardware=True)
        yield f"{last.variant}, chip answers {unit.name}", Victim(hardware, "soft", budget)
    spec = next((name for name in config.attack.defences if name != "none"), None)
    if spec is not None:
        bare = _asked(context, last)
        defence = defender(config, last).defence(spec, config.attack.seeds[0], bare)
        yield f"{last.variant} behind {spec}", Victim(bare, "soft", budget, defence=defence)
    if "top1" in config.attack.oracles:
        yield f"{last.variant}, label only", Victim(_asked(context, last), "top1", budget)


def _png(image: Images) -> str | None:
    """An image, float32 (C, H, W) in [0, 1], as PNG in base64; None without pillow."""
    try:
        from PIL import Image
    except ImportError:
        return None
    pixels = np.round(image * 255).astype(np.uint8)
    drawn = np.moveaxis(pixels, 0, 2) if len(pixels) == 3 else pixels[0]
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")

"""Suite ``attacks``: where the time of a model extraction goes, and what its training costs.

The attacker asks the integer engine, so nearly all of its time should be the training of its clone,
and that training as fast as a loop that anybody would write.
"""

import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.pages import table
from benchmarks.speed.suite import Context, Line, Record, Section
from benchmarks.speed.timing import interleaved, ratio, shown_ratio, shown_seconds

if TYPE_CHECKING:
    import torch
    from torch import nn

    from benchmarks.speed.racers import Images

_QUERIES, _EPOCHS, _SURROGATE = 50_000, 5, "vgg-small"
_IMAGES = 1024  # of a timed epoch
_SHOWN = {
    "ours": "`train_surrogate`",
    "plain": "plain loop",
    "plain-nhwc": "plain loop, channels last",
}


def measure(context: Context) -> Record:
    """Attack the integer engine once, then time training epochs beside plain loops."""
    import torch

    from benchmarks.speed.exported import BITS, exported
    from benchmarks.speed.timed_attack import TimedAttack, run_timed

    torch.set_num_threads(context.threads)
    model, queries, epochs, surrogate = "cifar-cnn", _QUERIES, _EPOCHS, _SURROGATE
    if context.quick:
        model, queries, epochs, surrogate = "digits-cnn", 200, 1, "mlp"
    with tempfile.TemporaryDirectory(prefix="divqat-speed-") as folder:
        network = exported(model, Path(folder))
        context.log(f"speed: attacks: {queries} queries to {model}, {epochs} epochs")
        attack_run = TimedAttack(network.qonnx, queries, surrogate, epochs, context.threads)
        # A process of its own, so that the peak of its memory is the attack's.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as process:
            attack = process.submit(run_timed, attack_run).result()
    size = 64 if context.quick else _IMAGES
    context.log("speed: attacks: training beside plain loops")
    times = interleaved(_epochs(network.shape, surrogate, size), context.rounds)
    return {
        "model": model,
        "bits": BITS,
        "attack": "knockoff-random",
        "surrogate": surrogate,
        "epochs": epochs,
        "run": attack,
        "images": size,
        "training": {name: spread.record() for name, spread in times.items()},
        "to_ours": {
            name: ratio(times["ours"], spread).record()
            for name, spread in times.items()
            if name != "ours"
        },
    }


def plain_epoch(
    surrogate: str, images: "Images", answers: "Images", layout: "torch.memory_format"
) -> "nn.Module":
    """An epoch of a clone's training as anybody would write it; gives the clone.

    Args:
        surrogate: its architecture.
        images: float32 (N, C, H, W).
        answers: float32 (N, 10), probabilities.
        layout: of images and weights.
    """
    import torch

    from divqat_brevitas.extraction import SurrogateTraining, build_surrogate
    from divqat_brevitas.extraction.surrogates.training import soft_cross_entropy

    settings = SurrogateTraining()
    model: Any = build_surrogate(surrogate, images.shape[1:], 10, 0)
    model.to(memory_format=layout).train()
    x, y = torch.from_numpy(images).to(memory_format=layout), torch.from_numpy(answers)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=True,
    )
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(x), generator=generator)
    for part in torch.split(order, settings.batch_size):
        optimizer.zero_grad()
        soft_cross_entropy(model(x[part]), y[part]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    clone: nn.Module = model
    return clone


def _epochs(
    shape: tuple[int, int, int], surrogate: str, size: int
) -> dict[str, Callable[[], object]]:
    """An epoch of training on the same tensors, from the same weights, with the same optimizer."""
    import numpy as np
    import torch

    from divqat_brevitas.extraction import build_surrogate, train_surrogate

    rng = np.random.default_rng(0)
    images = rng.random((size, *shape), dtype=np.float32)
    answers = rng.dirichlet(np.ones(10), size).astype(np.float32)

    def ours() -> object:
        model = build_surrogate(surrogate, shape, 10, 0)
        return train_surrogate(model, images, answers, epochs=1, seed=0)

    return {
        "ours": ours,
        "plain": lambda: plain_epoch(surrogate, images, answers, torch.contiguous_format),
        "plain-nhwc": lambda: plain_epoch(surrogate, images, answers, torch.channels_last),
    }


def section(record: Record) -> Section:
    """Where the time went, memory, and the training beside plain loops."""
    run = record["run"]
    seconds, memory = run["seconds"], run["memory"]
    rest = seconds["total"] - seconds["victim"] - seconds["training"]
    parts = (
        ("victim: checks, engine, oracle, ledger", seconds["victim"]),
        ("of which the integer engine", seconds["engine"]),
        ("training of the clone", seconds["training"]),
        ("the rest", rest),
        ("all", seconds["total"]),
    )
    lines = [
        f"{record['attack']} with {run['queries']:,} queries to {record['model']} at "
        f"{record['bits']} in the integer engine; the clone, {record['surrogate']}, is trained for "
        f"{record['epochs']} epoch(s). All queries are in the ledger, {run['batches']} batches.",
        "",
        *table(
            ("Part", "Seconds", "Share"),
            [(name, f"{s:.2f}", f"{s / seconds['total']:.1%}") for name, s in parts],
        ),
        f"Peak of resident memory: {_mib(memory['peak'])}, {_mib(memory['before'])} before the "
        f"attack with libraries, engine and pool ({_mib(memory['pool'])}) in it.",
        "",
        f"An epoch of training on {record['images']:,} images:",
        "",
        *table(
            ("Loop", "Epoch", "time of `train_surrogate` to it"),
            [
                (
                    _SHOWN[name],
                    shown_seconds(spread),
                    "" if name == "ours" else shown_ratio(record["to_ours"][name]),
                )
                for name, spread in record["training"].items()
            ],
        ),
        "The plain loops have the same network, initial weights, tensors, batches and optimizer, "
        "and neither a schedule nor clipped gradients nor a check for divergence.",
    ]
    what = f"{run['queries']:,} queries and a clone, {record['model']}"
    share = f"{seconds['victim'] / seconds['total']:.1%} of the time"
    return Section(
        "Attacks",
        lines,
        [
            Line(what, "the victim", share, f"the whole attack, {record['epochs']} epochs"),
            Line(
                f"Training of a clone, {record['surrogate']}",
                _SHOWN["ours"],
                shown_ratio(record["to_ours"]["plain"]),
                "a plain PyTorch loop",
            ),
        ],
    )


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"

"""One stage's work at several sizes, timed and weighed in a process of its own.

`python -m benchmarks.speed.cost_work` takes a job on stdin and gives its samples on stdout.
"""

import ctypes
import gc
import json
import os
import resource
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.speed.timing import interleaved

if TYPE_CHECKING:
    from torch import Tensor, nn

SHAPE, CLASSES = (1, 16, 16), 10
Work = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """How large the work is.

    Attributes:
        images: that a step, an engine, a parity gate or a clone's epoch sees.
        width: channels of the first convolution; the second has twice as many.
        bits: of weights and activations: 2, 3, 4 or 8.
    """

    images: int
    width: int
    bits: int


def main() -> None:
    """Do the job on stdin; whatever libraries print goes to stderr."""
    document = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    warnings.simplefilter("ignore")
    sizes = [Size(**size) for size in job["sizes"]]
    with tempfile.TemporaryDirectory() as folder:
        found = samples(job["stage"], sizes, job["rounds"], job["threads"], Path(folder))
    json.dump(found, document)
    document.close()


def samples(
    stage: str, sizes: list[Size], rounds: int, threads: int, folder: Path
) -> list[dict[str, Any]]:
    """Times in turns, and peak memory, of a stage at several sizes.

    Returns:
        A row a size: "parameters" (of the float network), "seconds" (a sample a round) and
        "memory": bytes by which the process grew at most, or of "compile" the whole peak of
        FINN's own process; None where the system does not tell.
    """
    import torch

    torch.set_num_threads(threads)
    work: dict[str, Work] = {}
    rows: list[dict[str, Any]] = []
    for number, size in enumerate(sizes):
        (folder / str(number)).mkdir()
        network = _network(size.width)
        rows.append({"parameters": sum(p.numel() for p in network.parameters())})
        work[str(number)] = _STAGES[stage](network, size, folder / str(number))
    finn = stage == "compile"
    if not finn:
        work["0"]()  # what is loaded once belongs to no size
    for number, row in enumerate(rows):
        row["memory"] = None if finn else _growth(work[str(number)])
    times = interleaved(work, rounds, warmup=0)
    for number, row in enumerate(rows):
        row |= {"seconds": list(times[str(number)].samples)}
        if finn:
            # Of children that ended, the largest; hence one size a process for this stage.
            row["memory"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return rows


def _network(width: int) -> "nn.Sequential":
    """Two convolutions and a linear layer, whose batch norms have seen random images."""
    import torch
    from torch import nn

    channels, side, _ = SHAPE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
            nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.BatchNorm2d(2 * width),
            nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(2 * width * (side // 4) ** 2, CLASSES),
        )  # fmt: skip
    with torch.no_grad():
        for _ in range(20):
            network(_images(64).float() / 255)
    return network


def _images(count: int) -> "Tensor":
    """(count, C, H, W) uint8 noise."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *SHAPE), generator=generator, dtype=torch.uint8)


def _quantized(network: "nn.Sequential", size: Size) -> "nn.Module":
    from divqat_brevitas.models import quantize
    from divqat_brevitas.training import calibrate

    quantized = quantize(network, f"w{size.bits}a{size.bits}")
    calibrate(quantized, _images(64))
    return quantized


def _train(network: "nn.Sequential", size: Size, folder: Path) -> Work:
    """A step of plain QAT by the trainer's own loop."""
    import torch

    from divqat_brevitas.training import TrainSettings
    from divqat_brevitas.training.loop import Loop, PlainLoss

    labels = torch.arange(size.images) % CLASSES
    settings = TrainSettings(epochs=1000, batch_size=size.images, learning_rate=1e-4)
    data = (_images(size.images), labels)
    loop = Loop(_quantized(network, size), PlainLoss(), data, settings, "cost")
    return lambda: loop.epoch(0)


def _export(network: "nn.Sequential", size: Size, folder: Path) -> Work:
    """Export to QONNX behind the parity gate."""
    from fpga_flow import export_qonnx

    quantized = _quantized(network, size).eval()
    examples = (_images(size.images).float() / 255).numpy()
    return lambda: export_qonnx(quantized, folder / "model.onnx", examples)


def _engine(network: "nn.Sequential", size: Size, folder: Path) -> Work:
    """The integer engine on all images."""
    from fpga_flow import export_qonnx, load_engine

    examples = (_images(size.images).float() / 255).numpy()
    export_qonnx(_quantized(network, size).eval(), folder / "model.onnx", examples[:16])
    engine = load_engine(folder / "model.onnx", engine="integer")
    return lambda: engine.predict(examples)


def _attack(network: "nn.Sequential", size: Size, folder: Path) -> Work:
    """An epoch of a clone's training on as many answers; the clone has the network's size."""
    import numpy as np

    from divqat_brevitas.extraction import train_surrogate

    examples = (_images(size.images).float() / 255).numpy()
    answers = np.random.default_rng(0).dirichlet(np.ones(CLASSES), size.images).astype(np.float32)
    return lambda: train_surrogate(network, examples, answers, epochs=1, seed=0)


def _compile(network: "nn.Sequential", size: Size, folder: Path) -> Work:
    """FINN's build to RTL code and estimates; its process is started anew."""
    from fpga_flow import export_qonnx
    from fpga_flow.compile import CompileSettings, compile_finn

    examples = (_images(16).float() / 255).numpy()
    export_qonnx(_quantized(network, size).eval(), folder / "model.onnx", examples)
    return lambda: compile_finn(folder / "model.onnx", folder / "build", CompileSettings())


_STAGES: dict[str, Callable[..., Work]] = {
    "train": _train,
    "export": _export,
    "engine": _engine,
    "attack": _attack,
    "compile": _compile,
}


def _growth(work: Work) -> int | None:
    """Bytes by which the process' resident memory grows at most within a call."""
    gc.collect()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc: give back what former calls left
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
        before = _status("VmRSS")
        work()
        return max(0, _status("VmHWM") - before)
    except OSError:
        return None


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise OSError(f"no {key} in /proc/self/status")


if __name__ == "__main__":
    main()

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
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.speed.timing import interleaved

if TYPE_CHECKING:
    from torch import Tensor, nn

CONVOLUTIONS = "two convolutions"
SHAPE, CLASSES = (1, 16, 16), 10
_ZOO_SHAPE = (3, 32, 32)
_BATCH = 128
# Their work is done by processes that they start, and so is its memory theirs.
OUTSIDE = ("compile", "simulate")
Work = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """How large the work is.

    Attributes:
        images: that an epoch, an engine, a parity gate or a simulation sees.
        width: channels of the first convolution; the second has twice as many.
        bits: of weights and activations: 2, 3, 4 or 8.
        network: ``CONVOLUTIONS``, or a name of ``divqat_brevitas.models``, whose width is its own.
    """

    images: int
    width: int
    bits: int
    network: str = CONVOLUTIONS

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return SHAPE if self.network == CONVOLUTIONS else _ZOO_SHAPE


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

    Args:
        stage: a key of ``_STAGES``.
        sizes: the first one's work is done once before anything is measured.
        rounds: timed calls of each size; 0: the call that is weighed is timed, and no other.
        threads: of PyTorch.
        folder: for files.

    Returns:
        A row a size: "parameters" (of the float network), "seconds" (a sample a round) and
        "memory": bytes by which the process grew at most, or of the stages ``OUTSIDE`` the whole
        peak of the largest process that they started; None where the system does not tell.
    """
    import torch

    torch.set_num_threads(threads)
    work: dict[str, Work] = {}
    rows: list[dict[str, Any]] = []
    for number, size in enumerate(sizes):
        (folder / str(number)).mkdir()
        network = _network(size)
        rows.append({"parameters": sum(p.numel() for p in network.parameters())})
        work[str(number)] = _STAGES[stage](network, size, folder / str(number))
    outside = stage in OUTSIDE
    if not outside:
        work["0"]()  # what is loaded once belongs to no size
    for number, row in enumerate(rows):
        start = time.perf_counter()
        # Of children that ended, the largest counts; hence one size a process for these stages.
        row["memory"] = _children(work[str(number)]) if outside else _growth(work[str(number)])
        row["seconds"] = [time.perf_counter() - start]
    if rounds:
        for name, times in interleaved(work, rounds, warmup=0).items():
            rows[int(name)]["seconds"] = list(times.samples)
    return rows


def _network(size: Size) -> "nn.Sequential":
    """The float network, whose batch norms have seen random images."""
    import torch

    if size.network == CONVOLUTIONS:
        network = _convolutions(size.width)
    else:
        from divqat_brevitas.models import build_model

        network = build_model(size.network, size.shape, CLASSES)
    with torch.no_grad():
        for _ in range(20):
            network(_pixels(64, size))
    return network


def _convolutions(width: int) -> "nn.Sequential":
    """Two convolutions and a linear layer."""
    import torch
    from torch import nn

    channels, side, _ = SHAPE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
            nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.BatchNorm2d(2 * width),
            nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(2 * width * (side // 4) ** 2, CLASSES),
        )  # fmt: skip


def _images(count: int, size: Size) -> "Tensor":
    """(count, C, H, W) uint8 noise."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *size.shape), generator=generator, dtype=torch.uint8)


def _pixels(count: int, size: Size) -> "Tensor":
    """The same as float32 in [0, 1]."""
    return _images(count, size).float().div_(255)


def _quantized(network: "nn.Sequential", size: Size) -> "nn.Module":
    from divqat_brevitas.models import quantize
    from divqat_brevitas.training import calibrate

    quantized = quantize(network, f"w{size.bits}a{size.bits}")
    calibrate(quantized, _images(64, size))
    return quantized


def _file(network: "nn.Sequential", size: Size, folder: Path) -> Path:
    """The network's QONNX file."""
    from fpga_flow import export_qonnx

    examples = _pixels(16, size).numpy()
    return export_qonnx(_quantized(network, size).eval(), folder / "model.onnx", examples).path


def _train(network: "nn.Sequential", size: Size, folder: Path) -> Work:
    """An epoch of plain QAT by the trainer's own loop."""
    import torch

    from divqat_brevitas.training import TrainSettings
    from divqat_brevitas.training.loop import Loop, PlainLoss

    labels = torch.arange(size.images) % CLASSES
    batch = min(size.images, _BATCH)
    settings = TrainSettings(epochs=1000, batch_size=batch, learning_rate=1e-4)
    data = (_images(size.images, size), labels)
    loop = Loop(_quantized(network, size), PlainLoss(), data, settings, "cost")
    return lambda: loop.epoch(0)


def _export(network: "nn.Sequential", size: Size, folder: Path) -> Work:
    """Export to QONNX behind the parity gate."""
    from fpga_flow import export_qonnx

    quantized = _quantized(network, size).eval()
    examples = _pixels(size.images, size).numpy()
    return lambda: export_qonnx(quantized, folder / "model.onnx", examples)


def _lower(network: "nn.Sequential", size: Size, folder: Path) -> Work:
    """QONNX to integers and thresholds."""
    from fpga_flow.lowering import lower

    file = _file(network, size, folder)
    return lambda: lower(file)


def _engine(network: "nn.Sequential", size: Size, folder: Path) -> Work:
    """The integer engine on all images."""
    from fpga_flow import load_engine

    engine = load_engine(_file(network, size, folder), engine="integer")
    examples = _pixels(size.images, size).numpy()
    return lambda: engine.predict(examples)


def _attack(network: "nn.Sequential", size: Size, folder: Path) -> Work:
    """An epoch of a clone's training on as many answers; the clone has the network's size."""
    import numpy as np

    from divqat_brevitas.extraction import train_surrogate

    examples = _pixels(size.images, size).numpy()
    answers = np.random.default_rng(0).dirichlet(np.ones(CLASSES), size.images).astype(np.float32)
    return lambda: train_surrogate(network, examples, answers, epochs=1, seed=0)


def _compile(network: "nn.Sequential", size: Size, folder: Path) -> Work:
    """FINN's build to RTL code and estimates; its process is started anew."""
    from fpga_flow.compile import CompileSettings, compile_finn

    file = _file(network, size, folder)
    return lambda: compile_finn(file, folder / "build", CompileSettings())


def _simulate(network: "nn.Sequential", size: Size, folder: Path) -> Work:
    """The generated RTL on all images; it is generated and compiled before."""
    from fpga_flow.engines.rtl import RtlEngine

    engine = RtlEngine(_file(network, size, folder), threads=1)
    examples = _pixels(size.images, size).numpy()
    engine.predict(examples[:1])

    def work() -> None:
        engine.predict(examples)
        engine.close()  # its process has to end before it is weighed

    return work


_STAGES: dict[str, Callable[..., Work]] = {
    "train": _train,
    "export": _export,
    "lower": _lower,
    "engine": _engine,
    "compile": _compile,
    "simulate": _simulate,
    "attack": _attack,
}


def _children(work: Work) -> int:
    """Bytes that the largest process was resident with, of those that ended until now."""
    work()
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


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

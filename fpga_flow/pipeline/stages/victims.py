"""Which victims a run has, what their files are called, and how they are loaded again."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from divqat_brevitas.data import dataset_info, load
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import Predictor, TorchPredictor
from divqat_brevitas.extraction.arrays import to_float
from divqat_brevitas.extraction.defences.owner import Defender
from divqat_brevitas.training import TrainSettings, VictimRecipe, load_weights
from fpga_flow.lowering.answer import AnswerUnit
from fpga_flow.pipeline.config import CompileSection, Config, Variant
from fpga_flow.pipeline.stages.context import StageContext

ANSWER = "answer.json"
# Engines that take what the compile stage built, and where within the victim's folder
BUILT = {"finn": "", "rtl": "design"}
_CALIBRATION = 1000
Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class VictimId:
    """One trained network: a variant at one seed."""

    variant: Variant  # "float", "ptq", "qat" or "divqat"
    seed: int  # it was trained with
    suffix: str  # of its files: empty for the run's first seed, else the seed

    @property
    def stem(self) -> str:
        """Its name in files and on the terminal, such as ``qat`` or ``qat-seed7``."""
        return f"{self.variant}{self.suffix}"

    @property
    def weights(self) -> str:
        """Its weights within train/; the float victim is the reference of the others."""
        name = "reference" if self.variant == "float" else self.variant
        return f"{name}{self.suffix}.safetensors"

    @property
    def attacked(self) -> str:
        """What it is attacked in, within the run directory: its QONNX file, or float weights."""
        return f"train/{self.weights}" if self.variant == "float" else f"export/{self.stem}.onnx"


def identify(config: Config, variant: Variant, seed: int) -> VictimId:
    """The victim of a variant and a seed of the run."""
    return VictimId(variant, seed, "" if seed == config.run.seeds[0] else f"-seed{seed}")


def victims(config: Config) -> list[VictimId]:
    """All victims of a run: every variant at the first seed, then at the second, ...

    Example:
        >>> from fpga_flow.pipeline.resolve import resolve
        >>> config = resolve(overrides=["run.seeds=0,7", "train.variants=float,qat"])
        >>> [victim.stem for victim in victims(config)]
        ['float', 'qat', 'float-seed7', 'qat-seed7']
    """
    return [
        identify(config, variant, seed)
        for seed in config.run.seeds
        for variant in config.train.variants
    ]


def quantized(config: Config) -> list[VictimId]:
    """The victims that are exported."""
    return [victim for victim in victims(config) if victim.variant != "float"]


def first_seed(config: Config) -> list[VictimId]:
    """The exported victims of the run's first seed: these are simulated and get hardware."""
    return [victim for victim in quantized(config) if not victim.suffix]


def split(config: Config, name: str) -> tuple[Images, Labels]:
    """One split of the run's data set: float32 NCHW in [0, 1] (pixel/255), and labels."""
    images, labels = load(config.data.name, name, config.data.root)
    return to_float(images), labels


def recipe_of(config: Config, victim: VictimId) -> VictimRecipe:
    """What the settings make a victim of."""
    chosen, is_float = config.train, victim.variant == "float"
    settings = TrainSettings(
        epochs=chosen.float_epochs if is_float else chosen.quant_epochs,
        learning_rate=chosen.learning_rate if is_float else chosen.quant_learning_rate,
        seed=victim.seed,
        **chosen.model_dump(include={"batch_size", "weight_decay", "augment"}),
    )
    return VictimRecipe(
        dataset=config.data.name,
        model=config.model.name,
        variant=victim.variant,
        settings=settings,
        bits=config.model.bits,
        quantizers={
            "per_channel": config.model.per_channel,
            "power_of_two": config.model.power_of_two,
            "first_bit_width": config.model.first_bits,
            "last_bit_width": config.model.last_bits,
            "join_bit_width": config.model.join_bits,
        },
        preset=config.divqat.preset,
        changes=config.divqat.changes,
        guard=config.divqat.guard,
        decoy_cost=config.divqat.decoy_cost,
        root=config.data.root,
    )


def trained(context: StageContext, victim: VictimId) -> nn.Module:
    """The trained network, in evaluation mode."""
    return _loaded(context, victim, f"train/{victim.weights}")


def exported(context: StageContext, victim: VictimId) -> nn.Module:
    """The torch network that its QONNX file equals: trained, then settled by the export."""
    return _loaded(context, victim, f"export/{victim.stem}.safetensors")


def _loaded(context: StageContext, victim: VictimId, weights: str) -> nn.Module:
    network = recipe_of(context.config, victim).untrained()
    load_weights(context.upstream(weights), network)
    return network.eval()


def answer_of(config: Config, victim: VictimId) -> str:
    """What a victim's chip answers: "logits" for one that gets no chip.

    Another seed's would be built like the first one's.
    """
    chosen = config.compile
    none = victim.variant == "float" or (chosen.variants and victim.variant not in chosen.variants)
    return "logits" if none else chosen.answer


def chip_answer(onnx: Path, chosen: CompileSection, train: Images | None = None) -> AnswerUnit:
    """The answer unit of a network, calibrated on the first training images."""
    from fpga_flow.engines.answering import answer_unit

    images = None if train is None else train[:_CALIBRATION]
    return answer_unit(onnx, chosen.answer, images, answer_key(chosen))


def answer_key(chosen: CompileSection) -> bytes:
    """The secret of a keyed answer, the bytes of its file; empty where none is named.

    Raises:
        InputError: the file cannot be read, or is empty.
    """
    if chosen.answer_key is None:
        return b""
    try:
        key = chosen.answer_key.read_bytes()
    except OSError as e:
        raise InputError(f"cannot read compile.answer_key: {e}.") from e
    if not key:
        raise InputError(
            f"compile.answer_key: {chosen.answer_key} is empty. Write random bytes to it, such as "
            "32 of /dev/urandom."
        )
    return key


def compiled_answer(context: StageContext, victim: VictimId) -> AnswerUnit | None:
    """What leaves a victim's chip in place of logits; None: logits, or it has no chip."""
    file = context.upstream(f"compile/{victim.stem}/{ANSWER}")
    chosen = context.config.compile.answer != "logits"
    there = chosen and "compile" in context.readable and file.is_file()
    return AnswerUnit.load(file) if there else None


def chip_unit(context: StageContext, victim: VictimId) -> AnswerUnit | None:
    """The answer unit of a victim's chip; None: logits leave it, or there is no chip.

    The compiled one, or for another seed or want of FINN its like, which is made only from the
    QONNX file and training images.
    """
    answer = answer_of(context.config, victim)
    if answer == "logits":
        return None
    if (compiled := compiled_answer(context, victim)) is not None:
        return compiled
    images = split(context.config, "train")[0]
    return chip_answer(context.upstream(victim.attacked), context.config.compile, images)


def defender(config: Config, victim: VictimId) -> Defender:
    """The owner of a victim, who builds defences from the run's data."""
    data = config.data
    return Defender(
        partial(load, data.name, "train", data.root),
        len(dataset_info(data.name).classes),
        victim.seed,
        validation=lambda: load(data.name, "val", data.root)[0],
    )


def predictor(
    context: StageContext, victim: VictimId, engine: str, answer: AnswerUnit | None = None
) -> Predictor:
    """What answers for a victim: torch, or an engine.

    ``engine`` is "torch", "integer", "qonnx", or "finn" and "rtl", which take what the compile
    stage built. ``answer`` is the answer unit behind the engine's integers; an RTL design has its
    own.
    """
    if engine == "torch":
        return TorchPredictor(trained(context, victim))
    from fpga_flow.engines import load_engine

    path = context.upstream(victim.attacked)
    if engine in BUILT and "compile" in context.readable:
        folder = context.upstream(f"compile/{victim.stem}") / BUILT[engine]
        path = folder if folder.is_dir() else path
    return load_engine(path, engine) if answer is None else load_engine(path, engine, answer)

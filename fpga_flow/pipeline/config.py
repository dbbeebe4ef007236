"""Settings of a run: one frozen class a section; see ``settings`` for where they come from."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from divqat_brevitas.errors import unknown_name
from divqat_brevitas.files import sha256_text

Bits = Literal[2, 3, 4, 8]
Variant = Literal["float", "ptq", "qat", "divqat"]


def _known_engine(name: str) -> str:
    from fpga_flow.engines.engine import ENGINES  # not before there are settings to read

    if name not in ENGINES:
        raise PydanticCustomError(
            "unknown_name", "{error}", {"error": unknown_name("engine", name, ENGINES)}
        )
    return name


EngineName = Annotated[str, AfterValidator(_known_engine)]
Count = Annotated[int, Field(gt=0)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], Field(min_length=1)]


class Section(BaseModel):
    """Base of every section: immutable, and no key but the declared ones.

    A key that may be None must be None by default: TOML cannot say None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What differs from the defaults."""
        for name, field in type(self).model_fields.items():
            if getattr(self, name) != field.default:
                yield name, getattr(self, name)

    @field_validator("*", mode="after")
    @classmethod
    def _no_repeats(cls, value: Any) -> Any:
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("a value stands in the list twice")
        return value


class RunSection(Section):
    """``[run]``: the run's name, and the seeds every victim is trained with.

    ``threads`` is PyTorch's number of threads (None: one a core). Small networks are
    fastest with one, and equal results to the last bit need an equal number. ``tensorboard``
    writes every training's epochs for TensorBoard too, into ``train/tensorboard/``.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "run"
    seeds: Seeds = (0,)
    threads: Count | None = None
    tensorboard: bool = False


class DataSection(Section):
    """``[data]``: a data set's registry name, and the folder it is kept in (None: the cache)."""

    name: Name = "digits"
    root: Path | None = None


class ModelSection(Section):
    """``[model]``: the network, its bit widths, and the wider first and last layers' (None: same).

    ``bits`` is ``w<weights>a<activations>``, each of 1, 2, 3, 4, 8. ``join_bits`` are those of a
    residual sum's branches (None: the activations'). Weight scales are one an output channel, or
    one a tensor.
    """

    name: Name = "digits-cnn"
    bits: Annotated[str, Field(pattern=r"^w[12348]a[12348]$")] = "w4a4"
    first_bits: Bits | None = None
    last_bits: Bits | None = None
    join_bits: Annotated[int, Field(ge=2, le=8)] | None = None
    per_channel: bool = True
    power_of_two: bool = False


class TrainSection(Section):
    """``[train]``: which victims are trained, and how long.

    ``float`` is the full-precision network, ``ptq`` the same quantized without
    training, ``qat`` quantization-aware trained, ``divqat`` with the divergence.
    """

    variants: Annotated[tuple[Variant, ...], Field(min_length=1)] = get_args(Variant)
    float_epochs: Count = 10
    quant_epochs: Count = 5
    batch_size: Count = 128
    learning_rate: Rate = 0.05
    quant_learning_rate: Rate = 0.01
    weight_decay: Weight = 5e-4
    augment: Literal["none", "shift", "flip-shift"] = "none"


class DivQATSection(Section):
    """``[divqat]``: the loss. None means: as the preset has it.

    ``guard`` is the accuracy (fraction of 1) a DivQAT victim may lose against its
    plain-QAT twin; ``warmup`` a fraction of the training; ``ood_weight`` to ``decoy_cost`` are
    of the decoy or reject output, the term on synthetic out-of-distribution images. ``ood_pool`` is
    a pool of images beside those (empty: none), ``decoy_cost`` the accuracy below the twin's at
    which the decoy or reject output is balanced after training, on validation data (None: it is
    left as training gives it).
    """

    preset: Literal[
        "literal", "convex", "nasty", "decoy", "decoy-photos", "reject", "reject-photos"
    ] = "nasty"
    temperature: Rate | None = None
    weight: Weight | None = None
    order: Literal["forward", "reverse", "js"] | None = None
    cap: Rate | None = None
    warmup: Annotated[float, Field(ge=0, le=1)] | None = None
    ood_weight: Weight | None = None
    ood_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    ood_families: Literal["all", "textures"] | None = None
    ood_pool: str | None = None
    ood_share: Annotated[float, Field(gt=0, le=1)] | None = None
    decoy_class: Annotated[int, Field(ge=0)] | None = None
    decoy_mass: Annotated[float, Field(gt=0, le=1)] | None = None
    ood_term: Literal["cross-entropy", "energy"] | None = None
    decoy_cost: Annotated[float, Field(ge=0, le=1)] | None = None
    guard: Annotated[float, Field(ge=0, le=1)] = 0.02

    @property
    def changes(self) -> dict[str, Any]:
        """What these settings change of the preset's loss."""
        return self.model_dump(exclude_none=True, exclude={"preset", "guard", "decoy_cost"})


class ExportSection(Section):
    """``[export]``: the torch exporter, and the images of the parity gate."""

    exporter: Literal["torchscript", "dynamo"] = "torchscript"
    parity_inputs: Count = 64


class CompileSection(Section):
    """``[compile]``: the device, how far to build, how parallel; ``variants`` empty: all quantized.

    ``target`` is a device of the open flow (``ecp5-85f``) or an AMD board (``pynq-z1``, which
    needs Vivado). ``until`` is ``estimate`` (FINN's graph and estimates), ``rtl`` (one stitched
    design, simulated) or ``bitstream``. The folding comes from ``folding`` (a FINN folding JSON),
    else ``fill`` (the fastest one within that fraction of the device), else ``target_fps``.
    ``clock_ns`` is the clock period asked for (None: as the target can). ``multipliers`` is
    ``none`` (products in logic) or ``auto`` (in an open target's multipliers, where these save
    the most logic).

    ``answer`` is all that leaves the chip of an image: ``logits``, ``top1`` (the label),
    ``topk:K``, ``rounded:BITS`` or ``posterior:BITS`` (codes of a few bits; see
    ``fpga_flow.lowering.answer``), or ``gated:C:BITS``: a posterior, but only the label where the
    decoy class C is in play. A network with a reject output shows the label, and for a rejected
    image with ``reject:abstain`` a code of its own, with ``reject:C`` class C, with
    ``reject:keyed`` a wrong label by the secret in the file ``answer_key`` (None: a public one).
    The integer engine of the simulate stage answers with them too, and the attack stage attacks
    them.
    """

    target: Name = "ecp5-85f"
    until: Literal["estimate", "rtl", "bitstream"] = "rtl"
    clock_ns: Rate | None = None
    target_fps: Count = 1000
    fill: Annotated[float, Field(gt=0, le=1)] | None = None
    multipliers: Literal["none", "auto"] = "none"
    folding: Path | None = None
    interface: Literal["uart", "ft245"] = "uart"
    variants: tuple[Literal["ptq", "qat", "divqat"], ...] = ()
    answer: str = "logits"
    answer_key: Path | None = None

    @field_validator("answer", mode="after")
    @classmethod
    def _known_answer(cls, value: str) -> str:
        number = "(0|[1-9][0-9]{0,3})"
        gated, reject = f"gated:{number}(:[1-8])?", f"reject:(abstain|keyed|(keyed:)?{number})"
        known = f"logits|top1|topk:[1-9][0-9]{{0,3}}|(rounded|posterior):[1-8]|{gated}|{reject}"
        if not re.fullmatch(known, value):
            raise ValueError(
                "it must be logits, top1, topk:K, rounded:BITS or posterior:BITS, gated:C:BITS, "
                "reject:abstain, reject:C or reject:keyed"
            )
        return value


class SimulateSection(Section):
    """``[simulate]``: the engine that measures accuracy; images compared between engines.

    ``rtl_inputs`` images go through the RTL, half of them with random stalls;
    ``netlist_inputs`` through the synthesised netlist, ``chip_inputs`` through the whole chip
    from the host's bytes: slow, and only where there is a bitstream. 0 leaves one out.
    """

    engine: EngineName = "integer"
    inputs: Count = 1000
    rtl_inputs: Annotated[int, Field(ge=0)] = 1000
    netlist_inputs: Annotated[int, Field(ge=0)] = 100
    chip_inputs: Annotated[int, Field(ge=0)] = 5


class AttackSection(Section):
    """``[attack]``: every combination is one attack. ``victims`` empty: all variants.

    ``attacks`` are names of ``extraction.ATTACKS``; ``learners`` how the attacker trains on the
    responses; ``defences`` what perturbs them, as ``none``, a name with its strength (``dcp:0.7``)
    or with its cost (``dcp@0.2``). ``budgets`` count queried images (empty: 1000, or
    all images of the smallest pool where that has fewer); ``seeds`` are the attacker's; ``engine``
    answers the queries for the quantized victims (a float victim answers by torch).
    """

    engine: EngineName = "integer"
    victims: tuple[Variant, ...] = ()
    budgets: tuple[Count, ...] = ()
    pools: Names = ("in",)
    oracles: Names = ("soft", "top1")
    defences: Names = ("none",)
    attacks: Names = ("knockoff-random",)
    learners: Names = ("soft", "argmax")
    surrogates: Names = ("vgg-small",)
    seeds: Seeds = (0,)
    epochs: Count = 20


class Config(Section):
    """All settings of a run.

    Example:
        >>> from fpga_flow.pipeline.resolve import resolve
        >>> config = resolve(overrides=["train.float_epochs=3", "attack.oracles=soft,top1"])
        >>> config.train.float_epochs, config.attack.oracles
        (3, ('soft', 'top1'))
    """

    run: RunSection = RunSection()
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()
    divqat: DivQATSection = DivQATSection()
    export: ExportSection = ExportSection()
    compile: CompileSection = CompileSection()
    simulate: SimulateSection = SimulateSection()
    attack: AttackSection = AttackSection()

    @model_validator(mode="after")
    def _only_trained_victims(self) -> Self:
        chosen = {
            "compile.variants": self.compile.variants,
            "attack.victims": self.attack.victims,
        }
        for key, variants in chosen.items():
            for variant in variants:
                if variant not in self.train.variants:
                    raise ValueError(
                        f"{key} has {variant!r}, which train.variants does not train: "
                        f"add it there or take it out of {key}"
                    )
        return self

    def fingerprint(self, part: str) -> str:
        """Hash of a section (``"train"``) or of one key (``"run.seeds"``)."""
        value: Any = self.model_dump(mode="json")
        for step in part.split("."):
            value = value[step]
        return sha256_text(json.dumps(value, sort_keys=True))

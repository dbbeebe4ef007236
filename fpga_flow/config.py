"""Settings of a run: one frozen class a section, from TOML, changed by ``section.key=value``.

Later layers win: defaults, preset, file, ``--set``. An unknown section, key or
value is an `InputError` that names the file, the key and the nearest known one.
The resolved settings are saved as ``config.toml`` in the run directory, and
reading that file gives equal settings again.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.files import sha256_text

_MAX_FILE = 256 * 1024  # bytes; the parser takes quadratic time on a hostile one

Bits = Literal[2, 3, 4, 8]
Variant = Literal["float", "ptq", "qat", "divqat"]


def _known_engine(name: str) -> str:
    from fpga_flow.simulate.engine import ENGINES  # not before there are settings to read

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

    ``bits`` is ``w<weights>a<activations>``, each of 2, 3, 4, 8. Weight scales are one an
    output channel, or one a tensor.
    """

    name: Name = "digits-cnn"
    bits: Annotated[str, Field(pattern=r"^w[2348]a[2348]$")] = "w4a4"
    first_bits: Bits | None = None
    last_bits: Bits | None = None
    per_channel: bool = True
    power_of_two: bool = False


class TrainSection(Section):
    """``[train]``: which victims are trained, and how long.

    ``float`` is the full-precision network, ``ptq`` the same quantized without
    training, ``qat`` quantization-aware trained, ``divqat`` with the divergence.
    """

    variants: Annotated[tuple[Variant, ...], Field(min_length=1)] = (
        "float",
        "ptq",
        "qat",
        "divqat",
    )
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
    plain-QAT twin; ``warmup`` a fraction of the training; ``ood_weight`` to ``decoy_mass`` are
    of the decoy, the term on synthetic out-of-distribution images.
    """

    preset: Literal["literal", "convex", "nasty", "decoy"] = "nasty"
    temperature: Rate | None = None
    weight: Weight | None = None
    order: Literal["forward", "reverse", "js"] | None = None
    cap: Rate | None = None
    warmup: Annotated[float, Field(ge=0, le=1)] | None = None
    ood_weight: Weight | None = None
    ood_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    decoy_class: Annotated[int, Field(ge=0)] | None = None
    decoy_mass: Annotated[float, Field(gt=0, le=1)] | None = None
    guard: Annotated[float, Field(ge=0, le=1)] = 0.02


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
    ``clock_ns`` is the clock period asked for (None: as the target can).

    ``answer`` is all that leaves the chip of an image: ``logits``, ``top1`` (the label),
    ``topk:K``, ``rounded:BITS`` or ``posterior:BITS`` (codes of a few bits; see
    ``fpga_flow.lowering.answer``), or ``gated:C:BITS``: a posterior, but the label alone where the
    decoy class C is in play. The integer engine of the simulate stage answers with them too, and
    the attack stage attacks them.
    """

    target: Name = "ecp5-85f"
    until: Literal["estimate", "rtl", "bitstream"] = "rtl"
    clock_ns: Rate | None = None
    target_fps: Count = 1000
    fill: Annotated[float, Field(gt=0, le=1)] | None = None
    folding: Path | None = None
    interface: Literal["uart", "ft245"] = "uart"
    variants: tuple[Literal["ptq", "qat", "divqat"], ...] = ()
    answer: str = "logits"

    @field_validator("answer", mode="after")
    @classmethod
    def _known_answer(cls, value: str) -> str:
        gated = "gated:(0|[1-9][0-9]{0,3})(:[1-8])?"
        known = f"logits|top1|topk:[1-9][0-9]{{0,3}}|(rounded|posterior):[1-8]|{gated}"
        if not re.fullmatch(known, value):
            raise ValueError(
                "it must be logits, top1, topk:K, rounded:BITS or posterior:BITS, or gated:C:BITS"
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

    ``attacks`` are names of ``extraction.ATTACKS``; ``learners`` what the thief makes of the
    answers; ``defences`` what perturbs them, as ``none``, a name with its strength (``dcp:0.7``)
    or with its cost (``dcp@0.2``). ``budgets`` count queried images; ``seeds`` are the thief's;
    ``engine`` answers the queries for the quantized victims (a float victim answers by torch). Up
    to version 0.1 ``learners`` was ``treatments``, and ``attacks`` was ``strategies`` (``random``,
    ``adaptive``); both are read.
    """

    engine: EngineName = "integer"
    victims: tuple[Variant, ...] = ()
    budgets: Annotated[tuple[Count, ...], Field(min_length=1)] = (1000,)
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
        for key, variants in (
            ("compile.variants", self.compile.variants),
            ("attack.victims", self.attack.victims),
        ):
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


def _renamed(section: str, key: str, value: Any) -> tuple[str, Any]:
    """A key and its value as they are called today; run directories of version 0.1 hold others."""
    if (section, key) not in (("attack", "strategies"), ("attack", "treatments")):
        return key, value
    if isinstance(value, str):  # from --set, which did not know that it is a list
        value = value.split(",")
    if key == "treatments":
        return "learners", value
    return "attacks", [f"knockoff-{name}" for name in value]


def presets() -> list[str]:
    """Names of the settings that come with the package."""
    folder = resources.files("fpga_flow") / "presets"
    return sorted(
        item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")
    )


def resolve(
    file: Path | None = None, preset: str | None = None, overrides: Iterable[str] = ()
) -> Config:
    """Settings from defaults, then a preset, a TOML file, and ``section.key=value`` texts.

    A relative path is meant from the file's own folder, or for an override from here.

    Raises:
        InputError: no such file or preset, no TOML, an unknown section, key or value.
    """
    values: dict[str, dict[str, Any]] = {}
    sources: dict[tuple[str, str], str] = {}

    def merge(layer: Mapping[str, Any], source: str, folder: Path) -> None:
        for section, keys in layer.items():
            if section not in Config.model_fields:
                raise _unknown_section(section, keys, source)
            if not isinstance(keys, dict):
                raise InputError(f"[{section}] of {source} must be a table of keys and values.")
            for old, given in keys.items():
                key, value = _renamed(section, old, given)
                sources[section, key] = source
                is_path = isinstance(value, str) and _annotation(section, key) == Path | None
                values.setdefault(section, {})[key] = (
                    os.path.abspath(folder / value) if is_path else value  # noqa: PTH100 (no symlink is followed)
                )

    if preset is not None:
        if preset not in presets():
            raise unknown_name("preset", preset, presets())
        text = (resources.files("fpga_flow") / "presets" / f"{preset}.toml").read_text("utf-8")
        merge(_parse(text, f"preset {preset}"), f"preset {preset}", Path())
    if file is not None:
        merge(_parse(_read(file), str(file)), str(file), file.parent)
    for override in overrides:
        merge(_override(override), f"--set {override}", Path())
    try:
        text = json.dumps(values, default=str)
    except (ValueError, RecursionError) as e:
        raise InputError(f"the settings hold a value that is too large: {e}.") from e
    try:
        return Config.model_validate_json(text)
    except ValidationError as e:
        raise _explained(e.errors()[0], sources) from e


def to_toml(config: Config) -> str:
    """The settings as TOML; keys that are None are left out, since TOML has no null."""
    blocks = []
    for section, keys in config.model_dump(mode="json", exclude_none=True).items():
        lines = [f"{key} = {_toml(value)}" for key, value in keys.items()]
        blocks.append("\n".join([f"[{section}]", *lines]) + "\n")
    return "\n".join(blocks)


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON's strings, numbers and booleans are TOML's, but for the raw DEL character.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def _read(file: Path) -> str:
    try:
        if file.is_file() and file.stat().st_size > _MAX_FILE:
            raise InputError(f"{file} is larger than {_MAX_FILE} bytes: no settings file.")
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as e:
        raise InputError(f"there is no settings file {file}. Presets: {presets()}.") from e
    except IsADirectoryError as e:
        raise InputError(
            f"{file} is a folder, not a settings file. To continue the run in it: "
            f"divqat run --out {file}"
        ) from e
    except (OSError, ValueError) as e:
        raise InputError(f"cannot read the settings file {file}: {e}.") from e


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as e:  # numbers and nests beyond Python's limits, too
        raise InputError(f"{source} is not valid TOML: {e}.") from e


def _override(text: str) -> dict[str, dict[str, Any]]:
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise InputError(f"--set {text!r} is not of the form section.key=value.")
    annotation = _annotation(section, key)
    parsed: Any
    if NoneType in get_args(annotation) and value.strip().lower() == "none":
        parsed = None
    elif _item(annotation) is not None and not value.strip().startswith("["):
        parsed = [_scalar(part) for part in value.split(",") if part.strip()]
    else:
        parsed = _scalar(value)
    return {section: {key: parsed}}


def _scalar(text: str) -> Any:
    """A TOML value where the text is one, else the text itself: names need no quotes."""
    try:
        parsed = tomllib.loads(f"value = {text.strip()}")
    except (ValueError, RecursionError):
        return text.strip()
    return parsed["value"] if set(parsed) == {"value"} else text.strip()


def _annotation(section: str, key: str) -> Any:
    """The declared type of a key, or None where there is no such key."""
    if section not in Config.model_fields:
        return None
    field = _keys(section).get(key)
    return field.annotation if field else None


def _keys(section: str) -> dict[str, Any]:
    kind: Any = Config.model_fields[section].annotation
    return dict(kind.model_fields)


def _item(annotation: Any) -> Any:
    """Element type of a tuple annotation, or None."""
    return get_args(annotation)[0] if get_origin(annotation) is tuple else None


def _choices(annotation: Any) -> Sequence[Any]:
    """The members of the first Literal within a type."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    for inner in get_args(annotation):
        if found := _choices(inner):
            return found
    return ()


def _unknown_section(section: str, keys: object, source: str) -> InputError:
    owners = [name for name in Config.model_fields if section in _keys(name)]
    if owners and not isinstance(keys, dict):
        return InputError(f"{source}: the key {section!r} belongs below [{owners[0]}].")
    error = unknown_name("section", section, Config.model_fields)
    return InputError(f"{source}: {error}")


def _explained(error: ErrorDetails, sources: Mapping[tuple[str, str], str]) -> InputError:
    """One paragraph from pydantic's first finding: which file, which key, what to write."""
    if len(error["loc"]) < 2:
        reason = error.get("ctx", {}).get("error", error["msg"])
        return InputError(f"the settings do not fit together: {reason}.")
    section, key = str(error["loc"][0]), str(error["loc"][1])
    source = sources.get((section, key), "the settings")
    if error["type"] == "extra_forbidden":
        owners = [name for name in Config.model_fields if key in _keys(name)]
        if owners:
            return InputError(
                f"{source}: [{section}] has no key {key!r}: it belongs in [{owners[0]}]."
            )
        unknown = unknown_name("key", key, _keys(section))
        return InputError(f"{source}: in [{section}], {unknown}")
    if error["type"] == "unknown_name":
        return InputError(f"{source}: {section}.{key}: {error['msg']}")
    if error["type"] == "literal_error":
        known = [str(choice) for choice in _choices(_annotation(section, key))]
        unknown = unknown_name("value", str(error["input"]), known)
        return InputError(f"{source}: {section}.{key}: {unknown}")
    return InputError(f"{source}: {section}.{key} = {error['input']!r}: {error['msg']}.")

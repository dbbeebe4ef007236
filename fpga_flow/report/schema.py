"""Schema 1 of ``report/results.json``: what a run measured, as typed structures.

Every field named here is required; a value that was not measured is ``null``. Fields beyond these
are kept as they are, so a later writer may add to a file that an earlier reader understands.
Accuracies, agreement, calibration error and decision flips are fractions of 1.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from divqat_brevitas.data.pools import PoolKind
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.detection.trials import DetectionFields
from divqat_brevitas.extraction.evaluation.records import AttackFields
from divqat_brevitas.short_repr import short_repr
from fpga_flow.records import reason

SCHEMA = 1

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]

Oracle = Literal["logits", "soft", "topk", "rounded", "top1"]
Status = Literal["done", "running", "failed", "missing-tool", "not-run"]


class Row(BaseModel):
    """Base of every structure: immutable, no coercion ("0.9" is no number), extra fields kept."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, populate_by_name=True)

    __repr__ = __str__ = short_repr


class Dataset(Row):
    """The images: how many to train and test on, of which classes and shape (C, H, W).

    The counts are null where results were put together without the images at hand.
    """

    name: str
    train: Count | None
    test: Count | None
    classes: Count | list[str]
    shape: list[Count]


class VictimRow(Row):
    """One trained victim: a variant at one seed."""

    variant: str
    bits: str
    seed: int
    preset: str | None
    accuracy: Fraction
    accuracy_engine: Fraction | None
    engine: str | None
    ece: Fraction | None
    l1_to_reference: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None
    flips_from_reference: Fraction | None


class NoiseRow(Row):
    """What a float engine's rounding decided otherwise than exact arithmetic.

    ``images`` with ``places`` (codes, by layer) that it decided; ``logits`` and ``labels`` are
    images of which these differ for it.
    """

    engine: str
    images: Count
    places: dict[str, Count]
    logits: Count
    labels: Count


class EquivalenceRow(Row):
    """Two engines compared value by value on the same inputs; 0 mismatches means identical.

    "codes" are what an answer unit puts out in place of accumulators. ``by_noise`` of the
    mismatches are inputs of which float32 rounding in torch or QONNX accounts for every
    difference; ``noise`` has its layers, places, logits and labels, an entry a float engine.
    """

    variant: str
    a: str
    b: str
    inputs: Count
    mismatches: Count
    unit: Literal["accumulators", "labels", "codes"]
    by_noise: Count = 0
    noise: list[NoiseRow] = []

    @property
    def faults(self) -> int:
        """Inputs with a difference that float noise does not account for."""
        return self.mismatches - self.by_noise


class AttackRow(AttackFields, Row):
    """One clone: the victim, the attack, its queries, and how good the clone became."""

    oracle: Oracle
    defence: str | None
    budget: Count
    queries_used: Count
    clone_accuracy: Fraction
    agreement: Fraction | None
    confusion: list[list[Count]] | None = Field(default=None, exclude=True)  # large, in no results


class SummaryRow(Row):
    """The worst case and the naive attack against a victim behind one defence and oracle.

    See :mod:`divqat_brevitas.extraction.evaluation.summary`, which makes it.
    """

    victim: str
    defence: str
    oracle: Oracle
    pool_kind: PoolKind
    budget: Count
    victim_accuracy: Fraction
    worst_case_clone_accuracy: Fraction
    worst_case_attack: str
    naive_clone_accuracy: Fraction | None
    queries_to_90_percent: Count | None
    seeds: Count
    victim_seeds: Count | None = None


class DetectionRow(DetectionFields, Row):
    """One trial of a tripwire: queries to an attacker's alarm, and false alarms."""

    evasion: str = "none"
    queries_per_image: Amount | None = None
    false_alarm_bound: Fraction | None = None


class OwnershipRow(Row):
    """One ownership test: the suspect's rate of secret labels, and by chance."""

    victim: str
    suspect: str
    suspect_kind: Literal["clone", "independent", "removal"]
    triggers: Count
    rate: Fraction
    null_rate: Fraction
    p_value: Fraction


class HardwareRow(Row):
    """What one tool said about one victim on one device, at one stage of the flow."""

    variant: str
    device: str
    stage: Literal["estimate", "synthesis", "place_and_route", "bitstream"]
    lut: Amount | None
    ff: Amount | None
    bram: Amount | None
    dsp: Amount | None
    fmax_mhz: Amount | None
    cycles_per_image: Amount | None
    images_per_s: Amount | None
    bitstream_bytes: Count | None
    tool: str
    # The clock that the rate is meant at, and fractions of the device by kind of cell.
    clock_mhz: Amount | None = None
    utilisation: dict[str, Amount] = {}


class LayerCells(Row):
    """What synthesis made of one layer of the hardware."""

    name: str
    lut: Count
    ff: Count
    bram: Count
    lutram: Count
    dsp: Count


class DesignNode(Row):
    """One layer or FIFO of a hardware design, as ``fpga_flow.rtl.design.Node`` has it."""

    name: str
    op: str
    sources: list[str] = []
    cycles: Amount | None = None
    depth: Count | None = None
    least: Count = 0


class Placement(Row):
    """Where place-and-route put a design's cells.

    ``tiles`` maps layers to the tiles they have cells in, ``"x,y x,y ..."``, x from the left and y
    from the top; ``columns`` and ``rows`` are the device's, null where they are not known.
    """

    device: str
    columns: Count | None
    rows: Count | None
    tiles: dict[str, Annotated[str, Field(pattern=r"^(\d+,\d+( |$))*$")]]


class Confusion(Row):
    """Which class was taken for which, of a victim or worst-case clone.

    ``counts[i][j]``: test images of class i that were answered with class j.
    """

    kind: Literal["victim", "clone"]
    victim: str
    seed: int
    what: str
    counts: list[list[Count]]

    @property
    def accuracy(self) -> float:
        """Share of the images that were answered with their own class."""
        right = sum(line[at] for at, line in enumerate(self.counts) if at < len(line))
        return right / (sum(map(sum, self.counts)) or 1)


class ExampleAnswer(Row):
    """The response of one victim's interface to an image: a probability for each class."""

    who: str
    probabilities: list[Fraction]


class Example(Row):
    """One image and the responses to it; ``png`` is base64, null where it could not be drawn."""

    source: str
    label: str | None
    png: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*=*$")] | None
    answers: list[ExampleAnswer]


class LayerRow(Row):
    """One layer of an exported network."""

    name: str
    op: str
    weight_bits: Amount | None = None
    activation_bits: Amount | None = None
    parameters: Count | None = None
    macs: Count | None = None
    accumulator_bits: Amount | None = None


class LayerEstimate(Row):
    """FINN's estimate of one hardware layer: clock cycles an image, and resources."""

    name: str
    cycles: Amount | None = None
    lut: Amount | None = None
    bram: Amount | None = None
    dsp: Amount | None = None
    pe: Count | None = None
    simd: Count | None = None


class Stage(Row):
    """How one stage of the run ended, and why it did not where it did not."""

    status: Status
    reason: str | None = None


class Run(Row):
    """How to make the run again: its settings (TOML text), versions, stages and files.

    ``files`` maps what a reader would compare (weights, QONNX files, bitstreams) to SHA-256.
    """

    name: str
    config: str | None
    versions: dict[str, str]
    stages: dict[str, Stage]
    files: dict[str, str] = {}


class Results(Row):
    """Everything one run measured: the content of ``report/results.json``."""

    schema_version: Literal[1] = Field(alias="schema")
    dataset: Dataset
    victims: list[VictimRow]
    equivalence: list[EquivalenceRow]
    attacks: list[AttackRow]
    summary: list[SummaryRow]
    hardware: list[HardwareRow]
    detection: list[DetectionRow] = []
    ownership: list[OwnershipRow] = []
    # What the page needs besides; keys of the dictionaries are variants.
    run: Run = Run(name="run", config=None, versions={}, stages={})
    layers: dict[str, list[LayerRow]] = {}
    estimates: dict[str, list[LayerEstimate]] = {}
    cells: dict[str, list[LayerCells]] = {}
    placement: dict[str, Placement] = {}
    designs: dict[str, list[DesignNode]] = {}
    confusions: list[Confusion] = []
    examples: list[Example] = []
    training: list[dict[str, Any]] = []


M = TypeVar("M", bound=Row)


def parse(model: type[M], value: Any, where: str) -> M:
    """``value``, read from JSON, as ``model``; an InputError names ``where`` and the field."""
    try:
        return model.model_validate(value)
    except ValidationError as e:
        raise InputError(
            f"{where}: {reason(e)}. Run the stage that wrote it again, or restore the file."
        ) from e


def validate(value: Any) -> Results:
    """Check a document, as read from a ``results.json``, against schema 1.

    Raises:
        InputError: not a document of schema 1; the first wrong field is named.

    Example:
        >>> empty = {"victims": [], "equivalence": [], "attacks": [], "summary": [], "hardware": []}
        >>> digits = {"name": "digits", "train": 8, "test": 2, "classes": 10, "shape": [1, 8, 8]}
        >>> validate({"schema": 1, "dataset": digits, **empty}).dataset.name
        'digits'
    """
    if not isinstance(value, Mapping):
        raise InputError("results.json must be one JSON object (a mapping); this is not.")
    version = value.get("schema")
    if version != SCHEMA or isinstance(version, bool):
        raise InputError(
            f"results.json has schema {version!r}, and this version reads schema {SCHEMA}. Write "
            "it again with `divqat report DIR`, or read it with the version that wrote it."
        )
    return parse(Results, dict(value), "results.json")

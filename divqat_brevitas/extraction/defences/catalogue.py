"""The defences by name, with what each needs on a chip.

A spec is "family:strength", such as "reverse-sigmoid:0.5"; a second number, where a family has
one, follows ("reverse-sigmoid:0.5:0.1": β and γ). "+" joins the parts of a composition, in order.
Result rows hold specs. "family@ℓ1", such as "reverse-sigmoid@0.2", names a cost instead of
a strength, which :func:`~divqat_brevitas.extraction.defences.cost.at_cost` finds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.extraction.defences.base import Composition, Defence, Undefended
from divqat_brevitas.extraction.defences.grad2 import GradientRedirection, train_redirection
from divqat_brevitas.extraction.defences.mad import MAD
from divqat_brevitas.extraction.defences.networks import (
    AdaptiveMisinformation,
    EnsembleOfDiverseModels,
    train_misinformation,
)
from divqat_brevitas.extraction.defences.perturbation import DCP, GaussianNoise, ReverseSigmoid
from divqat_brevitas.extraction.defences.truncation import (
    KeyedMisdirection,
    LabelOnlyFallback,
    Rounding,
    Top1,
    TopK,
)
from divqat_brevitas.extraction.predictor import Predictor
from divqat_brevitas.plugins import Registry
from divqat_brevitas.short_repr import ShortRepr


@dataclass(frozen=True, kw_only=True)
class DefenceMaterial(ShortRepr):
    """Networks and data of the owner that a defence is built from; never the test set.

    Attributes:
        images: the owner's training images, uint8 or float32 (N, C, H, W).
        labels: of the images, integers (N,).
        classes: number of the victim's classes; None: as many as the labels have.
        surrogate: a model of the attacker's network, for MAD and GRAD². Without it MAD draws
            random weights and GRAD² trains a network on ``images``.
        misinformation: a network trained to be wrong; without it one is trained on ``images``.
        models: further members of the ensemble of diverse models.
        architecture: of networks that are trained or drawn here, see :func:`build_surrogate`.
        epochs: of networks that are trained here.
    """

    images: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    classes: int | None = None
    surrogate: nn.Module | None = None
    misinformation: Predictor | nn.Module | None = None
    models: Sequence[Predictor | nn.Module] = ()
    architecture: str = "vgg-small"
    epochs: int = 10
    _trained: dict[tuple[str, int], nn.Module] = field(default_factory=dict, init=False, repr=False)

    def trained(self, train: Callable[..., nn.Module], what: str, seed: int) -> nn.Module:
        """A network trained on the owner's images, once for each seed.

        Raises:
            InputError: no images or no labels.
        """
        if self.images is None or self.labels is None:
            raise InputError(
                f"{what}, or the owner's training images and labels to train it on, must be "
                "in the DefenceMaterial."
            )
        if (what, seed) not in self._trained:
            self._trained[what, seed] = train(
                self.images,
                self.labels,
                classes=self.classes,
                network=self.architecture,
                epochs=self.epochs,
                seed=seed,
            )
        return self._trained[what, seed]


Make = Callable[[Sequence[float], DefenceMaterial, int], Defence]


@dataclass(frozen=True, kw_only=True)
class DefenceEntry:
    """One family of defences.

    Attributes:
        make: makes a defence from the numbers of its spec, the material and a seed.
        defaults: the numbers that a spec may leave out, from the right; an int stands for a whole
            number.
        source: the paper.
        deterministic: an image that is asked again gets the same response.
        keeps_label: the label is always the undefended one.
        hardware: whether an FPGA can do it next to the network, and with what.
        strengths: weakest and strongest worth considering, for :func:`calibrate`; None for
            families without a continuous strength.
    """

    make: Make
    defaults: tuple[float, ...] = ()
    source: str
    deterministic: bool = True
    keeps_label: bool = False
    hardware: str
    strengths: tuple[float, float] | None = None


def _of(defence: Callable[..., Defence]) -> Make:
    """A defence that its numbers define."""
    return lambda numbers, material, seed: defence(*numbers)


def _misinformation(numbers: Sequence[float], material: DefenceMaterial, seed: int) -> Defence:
    network = material.misinformation
    if network is None:
        network = material.trained(train_misinformation, "a misinformation network", seed)
    return AdaptiveMisinformation(numbers[0], network)


def _mad(keep_label: bool) -> Make:
    return lambda numbers, material, seed: MAD(
        numbers[0],
        keep_label=keep_label,
        surrogate=material.surrogate,
        architecture=material.architecture,
        seed=seed,
    )


def _grad2(direction: str) -> Make:
    def make(numbers: Sequence[float], material: DefenceMaterial, seed: int) -> Defence:
        surrogate = material.surrogate
        if surrogate is None:
            surrogate = material.trained(train_redirection, "GRAD²'s surrogate", seed)
        return GradientRedirection(numbers[0], surrogate, direction)

    return make


def _ensemble(numbers: Sequence[float], material: DefenceMaterial, seed: int) -> Defence:
    found = len(material.models) + 1
    if numbers[0] not in (0, found):
        raise InputError(
            f"ensemble:{numbers[0]:g} needs {numbers[0] - 1:g} models besides the victim's in the "
            f"DefenceMaterial, but it has {found - 1}."
        )
    return EnsembleOfDiverseModels(material.models, secret=seed)


_BUILT_IN: dict[str, DefenceEntry] = {
    "none": DefenceEntry(
        make=_of(Undefended),
        source="",
        keeps_label=True,
        hardware="nothing",
    ),
    "top1": DefenceEntry(
        make=_of(Top1),
        source="Tramèr et al., USENIX Security 2016",
        keeps_label=True,
        hardware="comparator: an argmax tree over the accumulators, instead of a softmax",
    ),
    "topk": DefenceEntry(
        make=_of(TopK),
        defaults=(3,),
        source="Tramèr et al., USENIX Security 2016",
        keeps_label=True,
        hardware="comparator: k rounds of the argmax tree; the division may be left out",
    ),
    "rounding": DefenceEntry(
        make=_of(Rounding),
        defaults=(2,),
        source="Tramèr et al., USENIX Security 2016",
        hardware="table: a softmax table of fewer output bits; the division may be left out",
    ),
    "gate": DefenceEntry(
        make=_of(LabelOnlyFallback),
        defaults=(0, 0.05),
        source="divqat",
        keeps_label=True,
        hardware="comparator: the argmax tree, and a comparison with one class",
    ),
    "misdirect": DefenceEntry(
        make=_of(KeyedMisdirection),
        defaults=(0,),
        source="divqat",
        hardware="comparator: the argmax tree, a comparison with one output, a table of labels",
    ),
    "noise": DefenceEntry(
        make=lambda numbers, material, seed: GaussianNoise(numbers[0], seed=seed),
        defaults=(0.2,),
        source="Adversarial Robustness Toolbox, GaussianNoise",
        deterministic=False,
        hardware="table: random bits (LFSR or ring oscillators) through a table, added; a divider",
        strengths=(0, 2),
    ),
    "reverse-sigmoid": DefenceEntry(
        make=_of(ReverseSigmoid),
        defaults=(0.5, 0.2),
        source="Lee et al., IEEE S&P Workshops 2019",
        hardware="table: y - r(y) of one quantized probability, and a divider for the row's sum",
        strengths=(0, 5),
    ),
    "dcp": DefenceEntry(
        make=_of(DCP),
        defaults=(0.7, 0.2),
        source="Khaled et al., ICMLA 2023",
        hardware="table and comparator: as reverse-sigmoid, switched by the largest probability",
        strengths=(0, 5),
    ),
    "misinformation": DefenceEntry(
        make=_misinformation,
        defaults=(0.9,),
        source="Kariyappa and Qureshi, CVPR 2020",
        hardware="second network of the victim's size, a comparator and a multiplexer",
        strengths=(0, 1.1),
    ),
    "mad": DefenceEntry(
        make=_mad(keep_label=False),
        defaults=(0.5,),
        source="Orekondy et al., ICLR 2020",
        hardware="no: needs a surrogate as second network, and floating-point square roots",
        strengths=(0, 2),
    ),
    "mad-argmax": DefenceEntry(
        make=_mad(keep_label=True),
        defaults=(0.5,),
        source="Orekondy et al., ICLR 2020",
        keeps_label=True,
        hardware="no: needs a surrogate as second network, and a search in floating point",
        strengths=(0, 2),
    ),
    "grad2": DefenceEntry(
        make=_grad2("all-ones"),
        defaults=(0.5,),
        source="Mazeika et al., ICML 2022",
        hardware="no: needs floating point and a surrogate's gradient",
        strengths=(0, 2),
    ),
    "grad2-min-ip": DefenceEntry(
        make=_grad2("min-ip"),
        defaults=(0.5,),
        source="Mazeika et al., ICML 2022",
        hardware="no: needs floating point and a surrogate's gradient",
        strengths=(0, 2),
    ),
    "ensemble": DefenceEntry(
        make=_ensemble,
        defaults=(0,),
        source="Kariyappa et al., ICLR 2021",
        hardware="second network for each further member, and a hash of the pixel stream",
    ),
}

FAMILIES: Registry[DefenceEntry] = Registry(
    "defence",
    "divqat.defences",
    _BUILT_IN,
    fits=lambda found: isinstance(found, DefenceEntry),
    expected="a DefenceEntry of divqat_brevitas.extraction.defences.catalogue",
)
"""All families by name: these, and those of installed packages."""


def make_defence(spec: str, material: DefenceMaterial | None = None, seed: int = 0) -> Defence:
    """The defence that ``spec`` names.

    Args:
        spec: "none", "rounding:1", "reverse-sigmoid:0.5", "top1", "dcp:0.7+rounding:2", ...
        material: for the families that need a network or data; see :class:`DefenceMaterial`.
        seed: of noise, random weights, training and the ensemble's secret.

    Raises:
        InputError: an unknown family, a bad number, a cost instead of a strength, or missing
            material.

    Example:
        >>> make_defence("dcp:0.7+rounding:2").name
        'dcp:0.7+rounding:2'
    """
    if split_target(spec)[1] is not None:
        raise InputError(
            f"defence {spec!r} names a cost, and its strength depends on the network: find it "
            "with divqat_brevitas.extraction.defences.at_cost."
        )
    material = material or DefenceMaterial()
    parts = [_make_one(part, material, seed) for part in spec.split("+")]
    return parts[0] if len(parts) == 1 else Composition(parts)


def family(
    name: str, material: DefenceMaterial | None = None, seed: int = 0
) -> Callable[[float], Defence]:
    """The defences of one family by strength; missing networks are trained once.

    Raises:
        InputError: an unknown family, one without a continuous strength, or missing material.

    Example:
        >>> family("noise")(0.25).name
        'noise:0.25'
    """
    entry = _entry(name)
    if entry.strengths is None:
        raise InputError(f"defence {name!r} has no continuous strength to choose.")
    given = material or DefenceMaterial()
    entry.make(entry.defaults, given, seed)  # trains what is missing, or refuses
    return lambda strength: entry.make((strength, *entry.defaults[1:]), given, seed)


def split_target(spec: str) -> tuple[str, float | None]:
    """Split a spec into the part without its cost, and the cost, a mean ℓ1 distance or None.

    Raises:
        InputError: a cost elsewhere than behind the last part, together with a strength, of a
            family without a continuous strength, or outside (0, 2].

    Example:
        >>> split_target("gate:0:0.05+dcp@0.2"), split_target("dcp:0.7")
        (('gate:0:0.05+dcp', 0.2), ('dcp:0.7', None))
    """
    if "@" not in spec:
        return spec, None
    plain, _, text = spec.rpartition("@")
    name = plain.rpartition("+")[2]
    if "@" in plain or "+" in text or ":" in name + text:
        raise InputError(
            f"defence {spec!r}: a cost stands behind the last part only, and in place of its "
            "numbers, such as 'gate:0:0.05+reverse-sigmoid@0.2'."
        )
    if _entry(name).strengths is None:
        raise InputError(f"defence {spec!r}: {name!r} has no continuous strength to choose.")
    try:
        target = float(text)
    except ValueError:
        target = np.nan
    if not 0 < target <= 2:
        raise InputError(
            f"defence {spec!r}: the cost is a mean ℓ1 distance above 0 and up to 2, not {text!r}."
        )
    return plain, target


def check_defence_name(name: str) -> str:
    """Check the defence's name of a result row, and return it.

    Raises:
        InputError: an unknown family, or a cost that cannot be named, see :func:`split_target`.

    Example:
        >>> check_defence_name("reverse-sigmoid:0.5+top1")
        'reverse-sigmoid:0.5+top1'
    """
    for part in split_target(name)[0].split("+"):
        _entry(part.split(":")[0])
    return name


@dataclass(frozen=True)
class DefenceRow:
    """One row of :func:`defence_table`; the fields are :class:`DefenceEntry`'s."""

    name: str
    source: str
    deterministic: bool
    keeps_label: bool
    hardware: str


def defence_table() -> list[DefenceRow]:
    """All families, in order.

    Example:
        >>> defence_table()[1].hardware
        'comparator: an argmax tree over the accumulators, instead of a softmax'
    """
    return [
        DefenceRow(name, entry.source, entry.deterministic, entry.keeps_label, entry.hardware)
        for name, entry in FAMILIES.items()
    ]


def _entry(name: str) -> DefenceEntry:
    if name not in FAMILIES:
        raise unknown_name("defence", name, FAMILIES)
    return FAMILIES[name]


def _make_one(spec: str, material: DefenceMaterial, seed: int) -> Defence:
    name, *texts = spec.split(":")
    entry = _entry(name)
    if len(texts) > len(entry.defaults):
        raise InputError(
            f"defence {spec!r} has {len(texts)} numbers, but {name!r} takes "
            f"{len(entry.defaults) or 'none'}."
        )
    try:
        numbers = [float(text) for text in texts]
    except ValueError as e:
        raise InputError(
            f"defence {spec!r}: {name!r} takes numbers behind colons, such as "
            f"{':'.join([name, *(f'{number:g}' for number in entry.defaults)])!r}."
        ) from e
    if not np.isfinite(numbers).all():
        raise InputError(f"defence {spec!r}: its numbers must be finite.")
    whole = [
        int(number) if isinstance(default, int) and number == int(number) else number
        for number, default in zip(numbers, entry.defaults, strict=False)
    ]
    return entry.make((*whole, *entry.defaults[len(numbers) :]), material, seed)

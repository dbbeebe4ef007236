"""Defences as the victim's owner builds them, with its own networks and strengths.

Networks are trained on the owner's training images; the strength of a defence that names a cost
("reverse-sigmoid@0.2") is found on its validation images.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from divqat_brevitas.data.arrays import Labels, Pixels
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import substream, to_float
from divqat_brevitas.extraction.defences import (
    AtCost,
    Cost,
    Defence,
    DefenceMaterial,
    at_cost,
    make_defence,
    split_target,
    train_misinformation,
    train_redirection,
)
from divqat_brevitas.extraction.oracles import softmax
from divqat_brevitas.extraction.predictor import Predictor
from divqat_brevitas.extraction.surrogates.networks import build_surrogate
from divqat_brevitas.files import read_json, sha256_text, write_json
from divqat_brevitas.training import load_weights, save_weights

_NETWORK = "vgg-small"
_IMAGES = 8000
_EPOCHS = 10
_VALIDATION_IMAGES = 1000
_OF_VICTIM = ("gate", "misdirect")


class Defender:
    """Builds defences by name; the networks that they need are trained once.

    Args:
        data: returns the owner's training images, uint8 (N, C, H, W), and labels, int64 (N,);
            called when first needed.
        classes: number of the victim's classes.
        seed: of the trained networks.
        others: returns further networks for "ensemble".
        folder: keeps trained networks and strengths for other processes; None: in memory only.
        validation: returns the owner's validation images, uint8 (N, C, H, W); for defences that
            name a cost.

    Example:
        >>> images, labels = np.zeros((20, 1, 8, 8), np.uint8), np.arange(20) % 2
        >>> Defender(lambda: (images, labels), 2).defence("rounding:1").name
        'rounding:1'
    """

    def __init__(
        self,
        data: Callable[[], tuple[Pixels, Labels]],
        classes: int,
        seed: int = 0,
        others: Callable[[], Sequence[Predictor]] = lambda: (),
        folder: Path | None = None,
        validation: Callable[[], Pixels] | None = None,
    ) -> None:
        self._data = data
        self._classes = classes
        self._seed = seed
        self._others = others
        self._folder = folder
        self._validation = validation
        self._trained: dict[str, nn.Module] = {}
        self._found: dict[str, AtCost] = {}

    def defence(self, spec: str, seed: int = 0, victim: Predictor | None = None) -> Defence:
        """A new defence ``spec``; a randomised one begins its stream from ``seed``.

        Args:
            spec: see :func:`divqat_brevitas.extraction.defences.make_defence`; may name a cost.
            seed: of everything random in the defence.
            victim: the defended network; needed where ``spec`` names a cost.

        Raises:
            InputError: an unknown family or a bad number, or no victim.
        """
        calibrated = self.at_cost(spec, seed, victim)
        plain_spec = spec if calibrated is None else calibrated.spec
        return make_defence(plain_spec, self._material(plain_spec), seed)

    def at_cost(self, spec: str, seed: int = 0, victim: Predictor | None = None) -> AtCost | None:
        """``spec`` with the strength that has the cost it names; None where it names no cost.

        The strength is found on the same 1,000 validation images for every victim of a data set
        and seed.

        Raises:
            InputError: see :meth:`defence`.
        """
        plain, target = split_target(spec)
        if target is None:
            return None
        if victim is None or self._validation is None:
            raise InputError(
                f"defence {spec!r}: its strength is found on a victim's responses to validation "
                "images. Give both, or a strength."
            )
        pixels = self._validation()
        subset = substream(self._seed, "validation").permutation(len(pixels))[:_VALIDATION_IMAGES]
        images = to_float(pixels[subset])
        responses = softmax(victim.predict(images))
        # The key has all inputs: another victim, or another answer unit, has other responses.
        contents = hashlib.sha256(images.tobytes() + responses.tobytes()).hexdigest()
        key = sha256_text(json.dumps([spec, seed, self._seed, contents]))
        if key not in self._found:
            file = None if self._folder is None else self._folder / f"{key[:16]}.json"
            if file is not None and file.is_file():
                record = read_json(file)
                self._found[key] = AtCost(**{**record, "cost": Cost(**record["cost"])})
            else:
                calibrated = at_cost(spec, responses, images, self._material(plain), seed)
                self._found[key] = calibrated
                if file is not None:
                    write_json(file, asdict(calibrated))
        return self._found[key]

    def _material(self, spec: str) -> DefenceMaterial:
        families = {part.split(":")[0] for part in spec.split("+")}
        material: dict[str, Any] = {}
        if "misinformation" in families:
            material["misinformation"] = self._network("misinformation", train_misinformation)
        if families & {"grad2", "grad2-min-ip"}:
            material["surrogate"] = self._network("redirection", train_redirection)
        if "ensemble" in families:
            material["models"] = self._others()
        return DefenceMaterial(**material)

    def _network(self, name: str, train: Callable[..., nn.Module]) -> nn.Module:
        if name not in self._trained:
            images, labels = self._data()
            file = None if self._folder is None else self._folder / f"{name}.safetensors"
            if file is not None and file.is_file():
                _, channels, height, width = images.shape
                shape = (channels, height, width)
                network = build_surrogate(_NETWORK, shape, self._classes, self._seed)
                load_weights(file, network)
                self._trained[name] = network.eval()
            else:
                subset = substream(self._seed, name).permutation(len(images))[:_IMAGES]
                self._trained[name] = train(
                    images[subset],
                    labels[subset],
                    classes=self._classes,
                    network=_NETWORK,
                    epochs=_EPOCHS,
                    seed=self._seed,
                )
                if file is not None:
                    save_weights(file, self._trained[name], {"defence": name})
        return self._trained[name]


def split_fallback(spec: str) -> tuple[str, str]:
    """Split a defence's name into its label-only fallback, "" where it has none, and the rest.

    A fallback belongs to a network with an out-of-distribution class or output, as the answer unit
    does: it is a part of the victim.

    Example:
        >>> split_fallback("gate:0:0.05+dcp@0.2"), split_fallback("dcp:0.7")
        (('gate:0:0.05', 'dcp@0.2'), ('', 'dcp:0.7'))
        >>> split_fallback("gate:0:0.05")
        ('gate:0:0.05', 'none')
    """
    first, _, rest = spec.partition("+")
    return (first, rest or "none") if first.partition(":")[0] in _OF_VICTIM else ("", spec)

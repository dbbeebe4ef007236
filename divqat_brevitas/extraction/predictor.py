"""Predictors: anything that computes logits of images can be attacked."""

import time
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Images, Responses, check_images
from divqat_brevitas.inference import as_logits, device_of, evaluating
from divqat_brevitas.input_range import InputRange


@runtime_checkable
class Predictor(Protocol):
    """A classifier with NumPy arrays in and out: a network, an integer engine, an RTL simulation.

    A predictor with other inputs than images in [0, 1] has an attribute ``input_range``, an
    :class:`InputRange`.
    """

    def predict(self, images: Images) -> Responses:
        """Logits, float32 (N, classes), of images, float32 NCHW in [0, 1]."""
        ...


class TorchPredictor:
    """A torch module as a :class:`Predictor`.

    Every prediction runs in eval mode and without gradients, on the device of the module's
    parameters; the training flags of the submodules are restored afterwards.

    Args:
        module: images (N, C, H, W) to logits (N, classes), in any form that
            :func:`divqat_brevitas.inference.as_logits` takes.
        batch_size: images in one forward pass.
        input_range: the values that the module takes, such as (0, 255); its inputs then have any
            shape (N, ...). None: images in [0, 1].

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> TorchPredictor(model).predict(np.zeros((3, 1, 8, 8), np.float32)).shape
        (3, 10)
    """

    def __init__(
        self,
        module: nn.Module,
        batch_size: int = 256,
        input_range: InputRange | tuple[float, float] | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, but is {batch_size}.")
        self.module = module
        self.batch_size = batch_size
        self.input_range = None if input_range is None else InputRange.of(input_range)

    def __repr__(self) -> str:
        return f"TorchPredictor({type(self.module).__name__}, batch_size={self.batch_size})"

    def predict(self, images: Images) -> Responses:
        """Logits, float32 (N, classes).

        Raises:
            InputError: bad images, images of a shape that the module does not take, or an output
                without logits.
        """
        check_images(images, declared=self.input_range)
        device = device_of(self.module)
        with evaluating(self.module):
            parts = [
                self._forward(images[i : i + self.batch_size], device)
                for i in range(0, len(images), self.batch_size)
            ]
        return np.concatenate(parts)

    def _forward(self, images: Images, device: torch.device) -> Responses:
        # A copy: torch refuses to share memory with a read-only array without a warning.
        batch = torch.tensor(images, device=device)
        try:
            output = self.module(batch)
        except RuntimeError as e:
            raise InputError(
                f"{type(self.module).__name__} cannot predict images of shape {images.shape}: {e}"
            ) from e
        value = as_logits(output, len(images), type(self.module).__name__)
        logits: Responses = value.float().cpu().numpy()
        return logits


class TimedPredictor:
    """A predictor that adds up the time it takes.

    Attributes:
        seconds: time spent in :meth:`predict` so far.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.seconds = 0.0

    def predict(self, images: Images) -> Responses:
        """The predictor's own logits, timed."""
        start = time.perf_counter()
        try:
            return self._predictor.predict(images)
        finally:
            self.seconds += time.perf_counter() - start


def as_predictor(model: Predictor | nn.Module) -> Predictor:
    """Return a :class:`Predictor` unchanged, a torch module wrapped in :class:`TorchPredictor`.

    Raises:
        InputError: neither of the two.
    """
    if isinstance(model, nn.Module):
        return TorchPredictor(model)
    if isinstance(model, Predictor):
        return model
    raise InputError(
        f"a {type(model).__name__} cannot be attacked: give a torch module, or an object with "
        "predict(images) -> logits."
    )

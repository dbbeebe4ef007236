"""QONNX's own execution of the file, node by node in float32: the reference for exports."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.change_batchsize import ChangeBatchSize
from qonnx.transformation.infer_shapes import InferShapes

from divqat_brevitas.errors import unknown_name
from fpga_flow.lowering import Network, check_images, clean, input_range_of, lower
from fpga_flow.lowering.ir import IntArray

FloatArray = npt.NDArray[np.float32]


class QonnxEngine:
    """``qonnx.core.onnx_exec.execute_onnx`` in batches.

    Each node becomes an ONNX Runtime session at every call, so a batch costs little more than an
    image: batches are always full, the last one padded.

    Args:
        model: a QONNX file or model.
        batch: images executed at once.

    Attributes:
        output: name of the logits' tensor.

    Raises:
        InputError: no file, no ONNX, no QONNX.

    Example:
        >>> engine = QonnxEngine("model.onnx")  # doctest: +SKIP
        >>> engine.tensors(images, ["Conv_0_out0"])["Conv_0_out0"].dtype  # doctest: +SKIP
        dtype('float32')
    """

    name = "qonnx"

    def __init__(self, model: Path | str | ModelWrapper, batch: int = 64) -> None:
        self._clean = clean(model)
        self._batch = batch
        self._batched = self._clean.transform(ChangeBatchSize(batch)).transform(InferShapes())
        self._input = str(self._clean.graph.input[0].name)
        self.output = str(self._clean.graph.output[0].name)
        self._range = input_range_of(self._clean)
        self._shape = tuple(int(n) for n in self._clean.get_tensor_shape(self._input)[1:])

    @cached_property
    def network(self) -> Network:
        """The lowered model, which gives layer names, scales and biases."""
        return lower(self._clean)

    def predict(self, images: FloatArray) -> FloatArray:
        """Logits, float32 (N, classes), of float32 images (N, *shape) in [0, 1]."""
        logits = self.tensors(images, [self.output])[self.output]
        return logits.reshape(len(logits), int(np.prod(logits.shape[1:])))

    def accumulators(self, images: FloatArray) -> dict[str, IntArray]:
        """Integer accumulators by layer name: ``rint((value - bias) / scale)`` of the tensors.

        Raises:
            LoweringError: the model cannot become integers, so there are no scales.
        """
        layers = self.network.accumulators
        values = self.tensors(images, [layer.output for layer in layers])
        return {layer.name: layer.to_integers(values[layer.output]) for layer in layers}

    def tensors(self, images: FloatArray, names: Sequence[str]) -> dict[str, FloatArray]:
        """Float values (N, ...) of tensors of the cleaned model, by name.

        Raises:
            InputError: images of another kind, or no tensor of that name.
        """
        check_images(images, self._shape, self._range)
        known = {self._input, *(out for node in self._clean.graph.node for out in node.output)}
        for name in names:
            if name not in known:
                raise unknown_name("tensor", name, known)
        parts: dict[str, list[FloatArray]] = {name: [self._empty(name)] for name in names}
        for context, count in self._execute(images):
            for name in parts:
                parts[name].append(context[name][:count])
        return {name: np.concatenate(part) for name, part in parts.items()}

    def _execute(self, images: FloatArray) -> Iterator[tuple[dict[str, Any], int]]:
        for start in range(0, len(images), self._batch):
            part = images[start : start + self._batch]
            padded = np.full((self._batch, *self._shape), self._range.low, dtype=np.float32)
            padded[: len(part)] = part
            yield (
                execute_onnx(self._batched, {self._input: padded}, return_full_exec_context=True),
                len(part),
            )

    def _empty(self, name: str) -> FloatArray:
        return np.empty((0, *self._clean.get_tensor_shape(name)[1:]), dtype=np.float32)

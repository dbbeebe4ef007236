"""QONNX's own execution of the file, node by node in float32: the reference for exports."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.change_batchsize import ChangeBatchSize
from qonnx.transformation.infer_shapes import InferShapes

from divqat_brevitas.errors import InputError, unknown_name
from fpga_flow.lowering import Network, check_images, clean, input_range_of, lower
from fpga_flow.lowering.ir import IntArray
from fpga_flow.untrusted import short

FloatArray = npt.NDArray[np.float32]


class QonnxEngine:
    """``qonnx.core.onnx_exec.execute_onnx`` in batches.

    Each node becomes an ONNX Runtime session at every call, so a batch costs little more than an
    image: batches are always full, the last one padded. A graph may hold numbers that fit one
    image alone (the sizes of a resized map, a constant beside the channels, an average over the
    batch). It is recognised by a batch that fails, or that makes a tensor of another shape than a
    row an image; then images are executed one by one.

    A softmax at the end is left out of ``predict``, which returns logits.

    Args:
        model: a QONNX file or model.
        batch: images executed at once.

    Attributes:
        model: the cleaned model.
        output: name of the logits' tensor.
        input_range: the values that an input may have.

    Raises:
        InputError: no file, no ONNX, no QONNX.

    Example:
        >>> engine = QonnxEngine("model.onnx")
        >>> engine.tensors(images, ["Conv_0_out0"])["Conv_0_out0"].dtype
        dtype('float32')
    """

    name = "qonnx"

    def __init__(self, model: Path | str | ModelWrapper, batch: int = 64) -> None:
        self.model = clean(model)
        self._batch = batch
        self._batched: ModelWrapper | None = None  # made and examined at the first execution
        self._input = str(self.model.graph.input[0].name)
        self.output = _logits_tensor(self.model)
        self.input_range = input_range_of(self.model)
        self._shape = tuple(int(n) for n in self.model.get_tensor_shape(self._input)[1:])

    @cached_property
    def network(self) -> Network:
        """The lowered model, which gives layer names, scales and biases."""
        return lower(self.model)

    def predict(self, images: FloatArray) -> FloatArray:
        """Logits, float32 (N, classes), of float32 images (N, *shape) in the input range.

        Raises:
            InputError: images of another kind, or a model that cannot be executed.
        """
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
            InputError: images of another kind, no tensor of that name, one that has no row for
                each image, or a model that cannot be executed.
        """
        check_images(images, self._shape, self.input_range)
        known = {self._input, *(out for node in self.model.graph.node for out in node.output)}
        for name in names:
            if name not in known:
                raise unknown_name("tensor", name, known)
        parts: dict[str, list[FloatArray]] = {
            name: [np.empty((0, *self.model.get_tensor_shape(name)[1:]), dtype=np.float32)]
            for name in names
        }
        if self._batched is None and len(images):
            self._examine(images)
        for start in range(0, len(images), self._batch):
            batch = images[start : start + self._batch]
            context = self._run(batch)
            for name in parts:
                parts[name].append(self._rows(name, context[name], len(batch)))
        return {name: np.concatenate(part) for name, part in parts.items()}

    def _examine(self, images: FloatArray) -> None:
        """Choose the batched graph if it has a row an image in every tensor, else single images."""
        if self._batch > 1:
            try:
                model = self.model.transform(ChangeBatchSize(self._batch))
                self._batched = model.transform(InferShapes())
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of shapes that disagree: seen below
                    context = self._run(images[: self._batch])
            except Exception:  # QONNX and ONNX Runtime raise bare exceptions of many kinds
                context = {}
            made = [out for node in self.model.graph.node for out in node.output]
            if all(self._has_row_an_image(context.get(name), name) for name in made):
                return
        self._batch, self._batched = 1, self.model

    def _has_row_an_image(self, value: Any, name: str) -> bool:
        if value is None:
            return False
        shape = tuple(self.model.get_tensor_shape(name))
        if name in self._constant or np.issubdtype(value.dtype, np.integer):
            # Quantized weights; and integers are the arithmetic of shapes: data are floats.
            return bool(value.shape == shape)
        return shape[:1] == (1,) and value.shape == (self._batch, *shape[1:])

    @cached_property
    def _constant(self) -> set[str]:
        """Tensors that do not depend on the image."""
        constant = {tensor.name for tensor in self.model.graph.initializer} | {""}
        for node in self.model.graph.node:
            if constant.issuperset(node.input):
                constant.update(node.output)
        return constant

    def _run(self, part: FloatArray) -> dict[str, Any]:
        padded = np.full((self._batch, *self._shape), self.input_range.low, dtype=np.float32)
        padded[: len(part)] = part
        try:
            context: dict[str, Any] = execute_onnx(
                self._batched, {self._input: padded}, return_full_exec_context=True
            )
        except Exception as e:  # as above
            raise InputError(
                f"QONNX cannot execute the model ({type(e).__name__}: {short(e)}). Export it again "
                "with fpga_flow.export_qonnx, which compares it with the PyTorch model."
            ) from e
        return context

    def _rows(self, name: str, value: FloatArray, count: int) -> FloatArray:
        if value.shape[:1] != (self._batch,):
            raise InputError(
                f"the tensor {name!r} has the shape {value.shape} for {self._batch} "
                f"image{'s' * (self._batch > 1)}: it does not have a row for each image."
            )
        return value[:count]


def _logits_tensor(model: ModelWrapper) -> str:
    """The output's tensor, or what a softmax at the end takes."""
    name = str(model.graph.output[0].name)
    last = model.find_producer(name)
    if last is None or last.op_type != "Softmax":
        return name
    over_classes = all(a.i in (-1, 1) for a in last.attribute if a.name == "axis")
    return str(last.input[0]) if over_classes else name

"""Small QONNX graphs, node by node, with random parameters."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.util.basic import qonnx_make_model

from fpga_flow.lowering import clean

DOMAIN = "qonnx.custom_op.general"


class Graph:
    """Grows node by node; every method that adds nodes returns the new tensor's name."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape = shape
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._image = ""

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def node(self, op: str, *inputs: str, domain: str = "", outputs: int = 1, **attrs: Any) -> str:
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        name = f"my_{op.lower()}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op, list(inputs), names, name=name, domain=domain, **attrs)
        )
        return names[0]

    def quant(
        self,
        x: str,
        scale: Any,
        bits: int,
        signed: bool = True,
        narrow: bool = False,
        rounding: str = "ROUND",
        zero_point: float = 0.0,
    ) -> str:
        parameters = [self.constant(p) for p in (scale, zero_point, bits)]
        return self.node(
            "Quant",
            x,
            *parameters,
            domain=DOMAIN,
            signed=int(signed),
            narrow=int(narrow),
            rounding_mode=rounding,
        )

    def bipolar(self, x: str, scale: Any = 1.0) -> str:
        return self.node("BipolarQuant", x, self.constant(scale), domain=DOMAIN)

    def image(self, bits: int = 8, scale: float = 1 / 255, signed: bool = False) -> str:
        """The quantized image; quantized once however often it is asked for."""
        self._image = self._image or self.quant("image", scale, bits, signed)
        return self._image

    def weight(
        self,
        shape: tuple[int, ...],
        bits: int = 4,
        axis: int | None = 0,
        narrow: bool = True,
        scale: Any = None,
    ) -> str:
        """Quantized weights; scales along ``axis`` (None: one for all) unless given."""
        if scale is None:
            one = [1] * len(shape)
            if axis is not None:
                one[axis] = shape[axis]
            scale = self.rng.uniform(0.02, 0.3, one)
        scale = np.asarray(scale)
        if bits == 1:
            return self.bipolar(self.constant(self.rng.normal(size=shape)), scale)
        spread = 2 ** (bits - 1) * scale
        return self.quant(
            self.constant(self.rng.normal(size=shape) * spread * 0.7), scale, bits, narrow=narrow
        )

    def conv(
        self,
        x: str,
        channels: int,
        out: int,
        kernel: tuple[int, int] = (3, 3),
        bits: int = 4,
        axis: int | None = 0,
        groups: int = 1,
        bias: bool = False,
        scale: Any = None,
        **attrs: Any,
    ) -> str:
        w = self.weight((out, channels // groups, *kernel), bits, axis, scale=scale)
        inputs = [x, w, *([self.constant(self.rng.normal(size=out))] if bias else [])]
        return self.node("Conv", *inputs, group=groups, kernel_shape=list(kernel), **attrs)

    def linear(self, x: str, inputs: int, out: int, bits: int = 4, axis: int | None = 1) -> str:
        """MatMul and a bias, so that logits do not tie."""
        y = self.node("MatMul", x, self.weight((inputs, out), bits, axis))
        return self.node("Add", y, self.constant(self.rng.normal(size=out)))

    def batch_norm(self, x: str, channels: int, spread: float = 8.0) -> str:
        """Random statistics; a third of the gammas negative."""
        sign = np.where(self.rng.random(channels) < 0.33, -1, 1)
        return self.node(
            "BatchNormalization",
            x,
            self.constant(sign * self.rng.uniform(0.5, 1.5, channels)),
            self.constant(self.rng.normal(size=channels)),
            self.constant(self.rng.normal(size=channels)),
            self.constant(self.rng.uniform(0.2, spread, channels)),
            epsilon=1e-5,
        )

    def model(self, output: str, out_shape: tuple[int, ...] | None = None) -> ModelWrapper:
        """The model that ends at tensor ``output``."""
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, *self.shape])
        logits = helper.make_tensor_value_info(output, TensorProto.FLOAT, out_shape)
        graph = helper.make_graph(self.nodes, "g", [image], [logits], self.constants)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 2)]
        return ModelWrapper(qonnx_make_model(graph, opset_imports=opsets))

    def classifier(self, x: str, classes: int = 5) -> ModelWrapper:
        """Flatten and a last linear layer."""
        cleaned = clean(self.model(x))
        shape = cleaned.get_tensor_shape(cleaned.graph.output[0].name)
        flat = self.node("Flatten", x, axis=1)
        return self.model(self.linear(flat, int(np.prod(shape)), classes), (1, classes))


def images(shape: tuple[int, ...], count: int = 6, seed: int = 0) -> NDArray[np.float32]:
    """Random images as engines want them: multiples of 1/255, black and white included."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *shape))
    pixels[0], pixels[1] = 0, 255
    return (pixels / np.float32(255)).astype(np.float32)

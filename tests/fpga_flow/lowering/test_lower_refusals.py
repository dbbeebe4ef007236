"""What cannot be lowered is refused with the node, the reason and the remedy."""

from collections.abc import Callable

import numpy as np
import pytest
from qonnx_graphs import Graph

from divqat_brevitas.errors import InputError
from fpga_flow.lowering import LoweringError, lower

SHAPE = (4, 6, 6)
Build = Callable[[Graph], str]


def codes(g: Graph) -> str:
    return g.quant(g.conv(g.image(), 4, 4), 0.5, 4)


REFUSED: dict[str, tuple[Build, str]] = {
    "unknown operator": (lambda g: g.node("Sigmoid", codes(g)), "Sigmoid.*cannot become integers"),
    "softmax": (lambda g: g.node("Softmax", codes(g)), "Softmax.*Export logits"),
    "float weights": (
        lambda g: g.node("Conv", codes(g), g.constant(np.ones((4, 4, 3, 3)))),
        "Conv.*no quantized weight.*QuantConv2d",
    ),
    "unquantized image": (
        lambda g: g.conv("image", 4, 4),
        "Conv.*reads the image before any quantizer.*QuantIdentity",
    ),
    "relu of the image": (
        lambda g: g.quant(g.node("Relu", "image"), 0.5, 4),
        "Relu.*before any quantizer",
    ),
    "nothing between two convolutions but a batch norm": (
        lambda g: g.conv(g.batch_norm(codes(g), 4), 4, 4),
        "Conv.*its input is no integer.*QuantReLU",
    ),
    "sum over channels of different scale": (
        lambda g: g.conv(
            g.quant(codes(g), g.rng.uniform(0.1, 1, (1, 4, 1, 1)), 4, zero_point=0), 4, 4
        ),
        "Conv.*sums channels of different scale",
    ),
    "weight scales per input channel": (
        lambda g: g.conv(codes(g), 4, 4, axis=1),
        "Conv.*several scales inside one output channel",
    ),
    "wide weights": (lambda g: g.conv(codes(g), 4, 4, bits=12), "weights have 12 bits"),
    "zero point": (lambda g: g.quant(codes(g), 0.5, 4, zero_point=3), "zero-point is not 0"),
    "wide activations": (lambda g: g.quant(codes(g), 0.5, 9), "bit width 9 .* 1 to 8"),
    "fractional bit width": (lambda g: g.quant(codes(g), 0.5, 2.5), "bit width 2.5"),  # type: ignore[arg-type]
    "scale of zero": (lambda g: g.quant(codes(g), 0.0, 4), "scale is not a positive number"),
    "run-time scale": (
        lambda g: g.node(
            "Quant",
            codes(g),
            g.node("ReduceMin", codes(g), keepdims=0),
            g.constant(0),
            g.constant(4),
            domain="qonnx.custom_op.general",
            signed=1,
            narrow=0,
        ),
        "ReduceMin.*cannot become integers",
    ),
    "rounding mode": (
        lambda g: g.quant(codes(g), 0.5, 4, rounding="HALF_UP"),
        "rounding mode HALF_UP",
    ),
    "unknown rounding mode": (
        lambda g: g.quant(codes(g), 0.5, 4, rounding="SOMEHOW"),
        "unknown rounding mode 'SOMEHOW'",
    ),
    "image quantized twice": (
        lambda g: g.node("Add", g.image(), g.quant("image", 0.3, 3)),
        "quantized a second time",
    ),
    "branches of unrelated scale": (
        lambda g: g.node("Add", codes(g), g.quant(codes(g), 0.3, 4)),
        "Add.*no power of two.*QuantIdentity",
    ),
    "branches of different shape": (
        lambda g: g.node("Add", codes(g), g.node("GlobalAveragePool", codes(g))),
        r"branches have shapes \(4, 4, 4\) and \(4, 1, 1\)",
    ),
    "branch with a pending relu": (
        lambda g: g.node("Add", g.node("Relu", codes(g)), codes(g)),
        "ReLU that no quantizer follows",
    ),
    "product of activations": (lambda g: g.node("Mul", codes(g), codes(g)), "Mul.*only Add"),
    "division by activations": (
        lambda g: g.node("Div", g.constant(1.0), codes(g)),
        "divides by activations",
    ),
    "division by zero": (lambda g: g.node("Div", codes(g), g.constant(0.0)), "or by 0"),
    "constant that varies in a channel": (
        lambda g: g.node("Add", codes(g), g.constant(g.rng.normal(size=(1, 1, 4, 4)))),
        "varies inside a channel",
    ),
    "NaN": (lambda g: g.node("Add", codes(g), g.constant(np.nan)), "holds NaN"),
    "infinity": (lambda g: g.node("Mul", codes(g), g.constant(np.inf)), "is infinite"),
    "average of a relu": (
        lambda g: g.node("GlobalAveragePool", g.node("Relu", codes(g))),
        "a ReLU.*in front of the pooling",
    ),
    "mean over channels": (
        lambda g: g.node("ReduceMean", codes(g), g.constant([1], np.int64)),
        "other axes than height and width",
    ),
    "reordered activations": (
        lambda g: g.node("Transpose", codes(g), perm=[0, 2, 3, 1]),
        "reorders activations",
    ),
    "flattened batch": (
        lambda g: g.node("Reshape", codes(g), g.constant([4, 16], np.int64)),
        "batch axis",
    ),
    "mixed channels": (
        lambda g: g.node("Reshape", g.batch_norm(codes(g), 4), g.constant([1, 2, 32], np.int64)),
        "mixes channels",
    ),
    "matrix product over an image": (
        lambda g: g.node("MatMul", codes(g), g.weight((4, 4))),
        "Flatten activations",
    ),
}


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals(build: Build, message: str) -> None:
    g = Graph(SHAPE)
    model = g.model(build(g))
    with pytest.raises(LoweringError, match=message) as caught:
        lower(model)
    assert isinstance(caught.value, InputError)
    assert caught.value.exit_code == 2
    assert "node '" in str(caught.value)
    assert "in the file: 'my_" in str(caught.value)  # the name the user knows
    assert str(caught.value).endswith(".")


def test_training_batch_norm_is_refused() -> None:
    g = Graph(SHAPE)
    x = g.batch_norm(codes(g), 4)
    g.nodes[-1].attribute.append(_integer("training_mode", 1))
    with pytest.raises(LoweringError, match=r"training mode.*model\.eval\(\)"):
        lower(g.model(x))


def test_output_that_ends_with_a_relu() -> None:
    g = Graph((6,))
    with pytest.raises(InputError, match="ends with a ReLU"):
        lower(g.model(g.node("Relu", g.linear(g.image(), 6, 5))))


def test_output_that_is_an_image() -> None:
    g = Graph(SHAPE)
    with pytest.raises(InputError, match=r"shape \(N, 4, 4, 4\)"):
        lower(g.model(codes(g)))


def test_image_that_is_never_quantized() -> None:
    g = Graph((6,))
    x = g.node("Mul", "image", g.quant(g.constant(np.ones(6)), 0.5, 4))
    with pytest.raises(InputError, match="never the image"):
        lower(g.model(x))


def _integer(name: str, value: int) -> object:
    from onnx import helper

    return helper.make_attribute(name, value)

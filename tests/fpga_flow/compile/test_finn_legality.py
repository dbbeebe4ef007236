"""Networks FINN cannot map are refused before it starts, naming the node and the remedy."""

import finn_networks as networks
import pytest
import torch
from brevitas.nn import (
    QuantConv2d,
    QuantConvTranspose2d,
    QuantHardTanh,
    QuantIdentity,
    QuantLinear,
    QuantReLU,
    TruncAvgPool2d,
)
from brevitas.quant import ShiftedUint8ActPerTensorFloat, ShiftedUint8WeightPerTensorFloat
from finn_networks import finn_worker
from torch import nn

from divqat_brevitas.errors import InputError
from fpga_flow.compile import (
    CompileSettings,
    Finding,
    compare_steps,
    compile_finn,
    compiler,
    legality,
)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = QuantConv2d(8, 8, 3, padding=1, bias=False, weight_bit_width=4)
        self.quant = QuantIdentity(bit_width=4, return_quant_tensor=True)

    def forward(self, x):
        return self.quant(self.conv(x)) + self.quant(x)


def after_block(*layers, features=8):
    return nn.Sequential(
        networks.pixels(),
        *networks.block(1, 8, 4),
        *layers,
        nn.Flatten(),
        QuantLinear(features, 10, bias=True, weight_bit_width=4),
    )


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(*networks.block(8, 4, 4))
        self.other = nn.Sequential(*networks.block(8, 4, 4))

    def forward(self, x):
        return torch.cat([self.one(x).value, self.other(x).value], 1)


def code():
    return QuantIdentity(bit_width=4, return_quant_tensor=True)


def convolution(*behind, **settings):
    return [
        QuantConv2d(8, 8, 3, padding=1, bias=False, **({"weight_bit_width": 4} | settings)),
        *behind,
    ]


def per_channel():
    """A quantized ReLU with a scale of its own for each of its 8 channels."""
    return QuantReLU(
        bit_width=4,
        scaling_per_output_channel=True,
        per_channel_broadcastable_shape=(1, 8, 1, 1),
        scaling_stats_permute_dims=(1, 0, 2, 3),
    )


ILLEGAL = {
    "average": (
        after_block(nn.AvgPool2d(2, 1, 1, count_include_pad=False), code(), features=648),
        "AveragePool",
        "/4/",
        "count_include_pad=True",
    ),
    "transposed convolution": (
        after_block(
            QuantConvTranspose2d(8, 8, 2, stride=2, bias=False, weight_bit_width=4),
            QuantReLU(bit_width=4, return_quant_tensor=True),
            features=2048,
        ),
        "ConvTranspose",
        "/4/",
        "strided convolutions",
    ),
    "softmax": (nn.Sequential(*after_block(features=512), nn.Softmax(1)), "Softmax", "/6/", "host"),
    "activation per channel": (
        after_block(*convolution(per_channel()), *networks.block(8, 8, 4), features=512),
        "Conv",
        "/6/",
        "per tensor",
    ),
    "zero point": (
        after_block(
            *convolution(
                QuantIdentity(act_quant=ShiftedUint8ActPerTensorFloat, return_quant_tensor=True)
            ),
            *networks.block(8, 8, 4),
            features=512,
        ),
        "Quant",
        "/5/",
        "symmetric",
    ),
    "zero point of weights": (
        after_block(
            *convolution(
                QuantReLU(bit_width=4, return_quant_tensor=True),
                weight_quant=ShiftedUint8WeightPerTensorFloat,
            ),
            features=512,
        ),
        "Quant",
        "/4/",
        "symmetric",
    ),
    "leaky ReLU": (
        after_block(nn.LeakyReLU(), code(), features=512),
        "LeakyRelu",
        "/4/",
        "QuantReLU",
    ),
    "sigmoid": (after_block(nn.Sigmoid(), code(), features=512), "Sigmoid", "/4/", "ReLU"),
    "pool of floats": (
        nn.Sequential(
            networks.pixels(),
            QuantConv2d(1, 8, 3, padding=1, bias=False, weight_bit_width=4),
            nn.BatchNorm2d(8),
            nn.MaxPool2d(2),
            QuantReLU(bit_width=4, return_quant_tensor=True),
            nn.Flatten(),
            QuantLinear(128, 10, bias=True, weight_bit_width=4),
        ),
        "MaxPool",
        "/3/",
        "in front of the pool",
    ),
    "dilated pool": (
        after_block(nn.MaxPool2d(2, dilation=2), features=72),
        "MaxPool",
        "/4/",
        "dilation=1",
    ),
    "float input": (
        nn.Sequential(*networks.block(1, 8, 4), nn.Flatten(), QuantLinear(512, 10, bias=True)),
        "Conv",
        "/0/",
        "QuantIdentity",
    ),
    "float weights": (
        nn.Sequential(networks.pixels(), nn.Flatten(), nn.Linear(64, 10)),
        "Gemm",
        "/2/",
        "quantized layer",
    ),
    "wide activation": (
        after_block(QuantReLU(bit_width=10, return_quant_tensor=True), features=512),
        "Quant",
        "/4/",
        "bit width",
    ),
}


@pytest.mark.slow  # builds with FINN
@pytest.mark.parametrize("name", ILLEGAL)
def test_node_and_remedy_are_named(name, tmp_path):
    network, op, node, remedy = ILLEGAL[name]
    path = networks.export(network, (1, 8, 8), tmp_path / "model.onnx")
    finding = legality(path)[0]
    assert (finding.op, finding.level) == (op, "FINN")
    assert finding.node.startswith(node)
    assert remedy in finding.remedy
    layer = node.strip("/")
    assert finding.layer.split(".")[0] == layer
    assert finding.layer in dict(network.named_modules())
    assert str(finding) == (
        f"layer {finding.layer!r}, {op} node {finding.node!r}: {finding.problem}. {finding.remedy}."
    )


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("/features/features.0/Conv", "features.0"),
        ("/features/features.0/features.0.1/weight_quant/export_handler/Quant", "features.0.1"),
        ("/block/conv/Conv", "block.conv"),
        (
            "/features/features.2/features.2.act_quant/features.2.act_quant.export_handler/_symbolic",
            "features.2",
        ),
        ("/Add", ""),
        ("Conv_0", ""),
    ],
)
def test_layer_is_named_as_pytorch_names_it(node, layer):
    assert Finding(node, "", "", "").layer == layer


@pytest.mark.parametrize(
    "network",
    [
        networks.cnn(2, 8),
        networks.mlp(4, 8),
        networks.tied_cnn(8),
        after_block(*networks.block(8, 8, 4, groups=8), features=512),
        after_block(*networks.block(8, 16, 4, groups=8), features=1024),
        after_block(*networks.block(8, 8, 4, groups=2), features=512),
        after_block(nn.AvgPool2d(4), code(), features=32),
        after_block(
            TruncAvgPool2d(4, bit_width=4, float_to_int_impl_type="floor"), code(), features=32
        ),
        after_block(Residual(), features=512),
        after_block(Branches(), code(), features=512),
        after_block(nn.AdaptiveAvgPool2d(1), code()),
        nn.Sequential(networks.pixels(), nn.MaxPool2d(2), *list(after_block(features=128))[1:]),
    ],
    ids=[
        "cnn",
        "mlp",
        "signed",
        "depthwise",
        "depthwise with more outputs",
        "groups",
        "average",
        "truncated average",
        "residual",
        "concatenation",
        "global average",
        "pool of pixels",
    ],
)
def test_what_finn_maps_is_not_refused(network, tmp_path):
    path = networks.export(network, (1, 8, 8), tmp_path / "model.onnx")
    assert legality(path) == []


@pytest.mark.finn
def test_refused_before_finn_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "Worker", None)
    path = networks.export(ILLEGAL["average"][0], (1, 8, 8), tmp_path / "model.onnx")
    with pytest.raises(
        InputError, match=r"model\.onnx.*layer '4', AveragePool node '/4/.*count_include_pad"
    ):
        compile_finn(path, tmp_path / "out", CompileSettings())
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_qonnx(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"model\.onnx"):
        legality(tmp_path / "model.onnx")


@pytest.mark.finn
@pytest.mark.slow
def test_unusual_layers_that_are_not_refused_are_built_exactly(tmp_path):
    network = nn.Sequential(
        networks.pixels(),
        nn.MaxPool2d(2, stride=1),  # of pixels; 11 x 11 remain
        *networks.block(1, 4, 4, dilation=2),  # 9 x 9
        nn.MaxPool2d(3, stride=2, padding=1),  # 5 x 5
        QuantConv2d(4, 6, (3, 1), stride=(2, 1), padding=(1, 0), bias=True, weight_bit_width=3),
        QuantHardTanh(bit_width=3, min_val=-1.0, max_val=1.0, return_quant_tensor=True),  # 3 x 5
        nn.MaxPool2d((2, 1)),  # 1 x 5: the third row is left out
        nn.Flatten(),
        QuantLinear(30, 10, bias=True, weight_bit_width=4),
        QuantIdentity(bit_width=8),  # logits quantized again
    )
    path = networks.export(network, (1, 12, 12), tmp_path / "model.onnx")
    assert legality(path) == []
    build = compile_finn(path, tmp_path / "build", CompileSettings(), finn_worker())
    rows = compare_steps(build, path, networks.images((1, 12, 12), 32))
    assert [row.mismatches for row in rows] == [0] * len(build.steps)
    assert rows[-1].layers == 3  # the codes of both activations and of the logits

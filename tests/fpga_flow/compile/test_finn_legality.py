"""Networks FINN cannot map are refused before it starts, naming the node and the remedy."""

import finn_networks as networks
import pytest
from brevitas.nn import QuantConv2d, QuantIdentity, QuantLinear, QuantReLU, TruncAvgPool2d
from torch import nn

from divqat_brevitas.errors import InputError
from fpga_flow.compile import CompileSettings, compile_finn, compiler, legality


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


def code():
    return QuantIdentity(bit_width=4, return_quant_tensor=True)


ILLEGAL = {
    "average": (after_block(nn.AvgPool2d(8), code()), "AveragePool", "/4/", "MaxPool2d"),
    "global average": (
        after_block(nn.AdaptiveAvgPool2d(1), code()),
        "GlobalAveragePool",
        "/4/",
        "MaxPool2d",
    ),
    "residual": (after_block(Residual(), features=512), "Add", "/4/", "skip connections"),
    "sigmoid": (after_block(nn.Sigmoid(), code(), features=512), "Sigmoid", "/4/", "ReLU"),
    "groups": (
        after_block(*networks.block(8, 8, 4, groups=2), features=512),
        "Conv",
        "/4/",
        "groups=1, or groups=8",
    ),
    "depthwise with more outputs": (
        after_block(*networks.block(8, 16, 4, groups=8), features=1024),
        "Conv",
        "/4/",
        "8 output channels",
    ),
    "pool of ceil mode": (
        after_block(nn.MaxPool2d(3, ceil_mode=True), features=72),
        "MaxPool",
        "/4/",
        "ceil_mode=False",
    ),
    "dilated pool": (
        after_block(nn.MaxPool2d(2, dilation=2), features=72),
        "MaxPool",
        "/4/",
        "dilation=1",
    ),
    "one-bit ReLU": (
        after_block(QuantReLU(bit_width=1, return_quant_tensor=True), features=512),
        "BipolarQuant",
        "/4/",
        "at least 2 bits",
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
        "weight quantizer",
    ),
    "wide activation": (
        after_block(QuantReLU(bit_width=10, return_quant_tensor=True), features=512),
        "Quant",
        "/4/",
        "8 or less",
    ),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_node_and_remedy_are_named(name, tmp_path):
    network, op, node, remedy = ILLEGAL[name]
    path = networks.export(network, (1, 8, 8), tmp_path / "model.onnx")
    finding = legality(path)[0]
    assert finding.op == op
    assert finding.node.startswith(node)
    assert remedy in finding.remedy
    assert str(finding) == f"{op} node {finding.node!r}: {finding.problem}. {finding.remedy}."


def test_truncating_average_is_refused(tmp_path):
    pool = TruncAvgPool2d(8, bit_width=4, float_to_int_impl_type="floor", return_quant_tensor=True)
    path = networks.export(after_block(pool), (1, 8, 8), tmp_path / "model.onnx")
    assert "Trunc" in {finding.op for finding in legality(path)}


@pytest.mark.parametrize(
    "network",
    [
        networks.cnn(2, 8),
        networks.mlp(4, 8),
        networks.tied_cnn(8),
        after_block(*networks.block(8, 8, 4, groups=8), features=512),
    ],
    ids=["cnn", "mlp", "signed", "depthwise"],
)
def test_what_finn_maps_is_not_refused(network, tmp_path):
    path = networks.export(network, (1, 8, 8), tmp_path / "model.onnx")
    assert legality(path) == []


@pytest.mark.finn
def test_refused_before_finn_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "Worker", None)
    path = networks.export(ILLEGAL["average"][0], (1, 8, 8), tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"model\.onnx.*AveragePool node '/4/.*Use MaxPool2d"):
        compile_finn(path, tmp_path / "out", CompileSettings())
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_qonnx(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"model\.onnx"):
        legality(tmp_path / "model.onnx")

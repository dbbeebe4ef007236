"""Export behind the parity gate, and compare the file's engines; argument: where to write it."""

import sys

import brevitas.nn as qnn
import torch
from torch import nn

from divqat_brevitas.data import load
from divqat_brevitas.quant import Int4WeightPerChannelFloatDivQAT, Uint4ActPerTensorFloatDivQAT
from fpga_flow import export_qonnx, load_engine

torch.manual_seed(0)
file = sys.argv[1] if len(sys.argv) > 1 else "own.onnx"
images, labels = load("digits", "train")
x, y = torch.tensor(images) / 255, torch.tensor(labels)
model = nn.Sequential(  # DivQAT's quantizers in a Brevitas network of your own
    qnn.QuantIdentity(act_quant=Uint4ActPerTensorFloatDivQAT, bit_width=8),
    qnn.QuantConv2d(1, 8, 3, padding=1, weight_quant=Int4WeightPerChannelFloatDivQAT),
    nn.BatchNorm2d(8),
    qnn.QuantReLU(act_quant=Uint4ActPerTensorFloatDivQAT),
    nn.Flatten(),
    qnn.QuantLinear(512, 10, bias=True, weight_quant=Int4WeightPerChannelFloatDivQAT),
)
optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
for _ in range(60):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()

report = export_qonnx(model, file, x[:32].numpy())  # ParityError names the first layer that differs
print(f"{report.path}: {report.parity.mismatches} mismatches over {report.parity.inputs} images")

test, _ = load("digits", "test")
x_test = test.astype("float32") / 255
integer, qonnx = (load_engine(file, name) for name in ("integer", "qonnx"))
same = (integer.predict(x_test).argmax(1) == qonnx.predict(x_test).argmax(1)).sum()
print(f"labels: {same} of {len(x_test)} equal in the integer engine and in QONNX's own execution")
for name, sums in integer.accumulators(x_test).items():
    print(f"{name}: {sums.dtype} accumulators from {sums.min()} to {sums.max()}")

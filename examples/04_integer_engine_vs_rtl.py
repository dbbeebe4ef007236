"""The file of 01_swap_quantizers.py in the integer engine and as simulated RTL: equal integers.

Needs finn-plus and Verilator (`divqat doctor`); arguments: the file, and the number of images.
"""

import sys

import numpy as np

from divqat_brevitas.data import load
from fpga_flow import load_engine

file = sys.argv[1] if len(sys.argv) > 1 else "digits.onnx"
count = int(sys.argv[2]) if len(sys.argv) > 2 else 100
images, labels = load("digits", "test")
x = images[:count].astype("float32") / 255

exact = load_engine(file, engine="integer").predict(x)
hardware = load_engine(file, engine="rtl")  # generated and compiled once, then cached by content
simulated = hardware.predict(x)
print(f"{count} images, {np.sum(exact != simulated)} logits differ")
print(f"accuracy of the RTL: {np.mean(simulated.argmax(1) == labels[:count]):.1%}")
timing = hardware.measure(x[:4])
print(f"latency {timing.latency_cycles} cycles, then an image every {timing.interval_cycles:.0f}")

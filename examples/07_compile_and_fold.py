"""Two foldings of 01's file for an ECP5: slow and small, fast and large. Needs finn-plus."""

import sys
from pathlib import Path

from fpga_flow.console import Progress
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.stages.hardware import build_all

file = Path(sys.argv[1] if len(sys.argv) > 1 else "digits.onnx")
out = Path(sys.argv[2] if len(sys.argv) > 2 else "folded")
for name, wish in (("slow", "target_fps=1000"), ("fast", "target_fps=100000")):
    settings = resolve(
        overrides=["compile.target=ecp5-85f", "compile.until=estimate", f"compile.{wish}"]
    )
    for row in build_all(file, out / name, settings.compile, Progress()):
        print(
            f"{name}: {row['cycles_per_image']} cycles an image, {row['images_per_s']:.0f} "
            f"images/s, {row['lut']} LUT, {row['bram']} BRAM ({row['stage']}, {row['tool']})"
        )

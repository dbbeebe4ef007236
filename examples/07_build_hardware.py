"""01's file as hardware for an ECP5: slow and small, fast and large. Needs finn-plus.

Arguments: the file, a folder, and how far to build: estimate, rtl or bitstream.
"""

import sys

from fpga_flow import build, check

file = sys.argv[1] if len(sys.argv) > 1 else "digits.onnx"
out = sys.argv[2] if len(sys.argv) > 2 else "chip"
until = sys.argv[3] if len(sys.argv) > 3 else "estimate"  # "bitstream" takes minutes

print(check(file))  # its layers, and what has no hardware
for name, images_per_s in (("slow", 1_000), ("fast", 100_000)):
    design = build(
        file,
        target="ecp5-85f",
        out=f"{out}/{name}",
        until=until,
        overrides={"compile.target_fps": images_per_s},
    )
    for row in design.rows:
        print(
            f"{name}: {row.cycles_per_image:.0f} cycles an image, {row.images_per_s:.0f} images/s, "
            f"{row.lut:.0f} LUT, {row.bram} BRAM ({row.stage}, {row.tool})"
        )
    if design.bitstream:
        print(f"{name}: {design.bitstream}")

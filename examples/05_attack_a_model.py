"""Attack the exported file of 01_swap_quantizers.py through the exact integer engine."""

import sys

from divqat_brevitas.data import load, query_pool
from divqat_brevitas.extraction import KnockoffNets, Victim, accuracy, agreement
from fpga_flow import load_engine

engine = load_engine(sys.argv[1] if len(sys.argv) > 1 else "digits.onnx", engine="integer")
images, labels = load("digits", "test")
x = images.astype("float32") / 255

for oracle in ("soft", "top1"):
    victim = Victim(engine, oracle=oracle, budget=200)
    clone = KnockoffNets(seed=0, epochs=10).run(victim, query_pool("in", "digits", 200, seed=0))
    print(
        f"{oracle}: victim {accuracy(engine, x, labels):.1%}, "
        f"clone {accuracy(clone.clone, x, labels):.1%} after {clone.queries_used} queries, "
        f"agreement {agreement(clone.clone, engine, x):.1%}"
    )

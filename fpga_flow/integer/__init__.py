"""The integer engine: the lowered network in exact, fast kernels, with the gate that proves them.

Stands between the lowering, which defines the integers, and the export, whose parity gate compares
with this engine.
"""

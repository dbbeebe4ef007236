"""Quantization maths as plain modules: no injection, no Brevitas layer."""

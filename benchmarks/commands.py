"""The commands below `divqat bench`; nothing heavy is imported before one runs."""

from benchmarks.extraction.command import bench_extraction
from benchmarks.hardware.command import bench_hardware
from benchmarks.speed.command import bench_speed

COMMANDS = (bench_extraction, bench_speed, bench_hardware)

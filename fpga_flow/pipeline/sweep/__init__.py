"""Sweeps: many runs of the pipeline, one a cell of a grid of settings, side by side.

    SWEEP.toml -> plan (cells) -> runner -> launch (a process a cell) -> child (the pipeline)

A cell is a run directory of its own and is known by the hash of its settings, so a finished one
is never run again. The same cell runs as a process here or as one on a Dask cluster.
"""

"""Sweeps: many runs of the pipeline side by side, one a task for each point of a grid of settings.

    SWEEP.toml -> grid (tasks) -> run (the pipeline for each) -> figures (the table)

A task is a run directory of its own and is known by the hash of its settings, so a finished one is
never run again.
"""

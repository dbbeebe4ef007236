"""The `divqat` command, one module a group of commands."""

from fpga_flow.cli.commands import cli, main

__all__ = ["cli", "main"]

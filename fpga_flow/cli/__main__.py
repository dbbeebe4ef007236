"""``python -m fpga_flow.cli``: the `divqat` command without its script."""

from fpga_flow.cli.commands import main

main()

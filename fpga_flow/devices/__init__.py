"""Families of devices of the open flow: a module each, entered in ``fpga_flow.targets``."""

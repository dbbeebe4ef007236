"""The bodies of the six stages, one module each; `fpga_flow.pipeline` puts them in order."""

"""The hardware benchmark: what was built from finished runs, how large, how fast, how exact."""

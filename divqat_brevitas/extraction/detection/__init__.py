"""The tripwire: a sequential test on the rejected bit of each query, and trials of it."""

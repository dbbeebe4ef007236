"""Foldings without FINN: shapes of layers, their clock cycles and cells, and the solver."""

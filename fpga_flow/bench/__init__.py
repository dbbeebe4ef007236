"""Benchmarks: measured on finished runs, written as JSON, and as a table made from the JSON."""

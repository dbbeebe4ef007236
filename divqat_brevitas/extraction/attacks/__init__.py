"""Extraction attacks, each from its paper; they share the contract of :mod:`.base`."""

"""Baselines of other libraries by name, one module a library."""

"""Fusion: many pyramids in, one pyramid out. Knows nothing of bands."""

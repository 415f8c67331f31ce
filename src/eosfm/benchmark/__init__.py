"""Benchmark: baselines and comparisons under one protocol."""

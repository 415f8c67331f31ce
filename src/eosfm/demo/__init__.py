"""The demo: the whole paper in miniature, on synthetic worlds or on small real data."""

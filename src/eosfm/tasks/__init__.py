"""Tasks: decoders and heads over a pyramid, losses and metrics. Knows nothing of bands."""

"""eosfm: a generalist feature extractor for Earth observation, assembled from small specialists."""

from eosfm._version import __version__

__all__ = ["__version__"]

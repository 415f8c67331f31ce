"""Scenes in, maps out: tiling, raster files and the prediction loop."""

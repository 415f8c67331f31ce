"""Readers of published data sets in their own on-disk layouts; TorchGeo's where it has them. One module per family."""

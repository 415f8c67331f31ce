"""The same mathematics as `eosfm.ensemble`, fast."""

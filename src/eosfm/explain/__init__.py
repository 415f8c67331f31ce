"""Which specialist matters: subsets at the price of the decoder, search, scaling curves, attribution, similarity."""

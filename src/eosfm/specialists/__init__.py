"""Specialists: one frozen ConvNeXtV2-Atto each, described by a card, stored without pickle, found in a zoo."""

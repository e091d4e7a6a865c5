"""Stores: where sessions live. `base` holds the protocols, the other modules one implementation each."""

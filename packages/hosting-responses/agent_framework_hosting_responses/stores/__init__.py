"""Stores of the channel: `base` holds the protocols, the other modules one implementation each."""

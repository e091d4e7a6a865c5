"""Runs: status, log and engine. `base` holds the protocols, the other modules one implementation each."""

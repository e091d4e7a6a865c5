"""Targets: what is hosted. One module per kind; `base` holds what they have in common."""

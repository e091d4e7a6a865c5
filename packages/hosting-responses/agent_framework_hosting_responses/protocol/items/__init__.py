"""One writer per kind of output item, and the table that picks it."""

"""The Responses protocol and nothing around it: no I/O, no event loop, no web framework."""

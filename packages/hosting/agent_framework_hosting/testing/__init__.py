"""Public test helpers: a scripted agent, and the suites every store, log and engine must pass."""

"""Public test helpers: the suites every store of the channel must pass. They need pytest and pytest-asyncio."""

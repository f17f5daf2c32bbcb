"""A scripted life of a queue, and a fault at each point of it: see `python -m tests.crashpoints --help`."""

"""The command line: one file per command, nothing of the engine."""

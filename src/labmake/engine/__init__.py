"""The engine: plans targets, decides what is up to date, has steps run, records what they made."""

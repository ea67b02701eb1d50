"""Executors: where steps run. Now: worker processes on this machine."""

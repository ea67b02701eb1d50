"""Experiments in a project's folders and branches: made, guarded, compared."""

"""labmake: Make for the lab. The names that script.py, rules.py and plans use; nothing else."""

from labmake.api import each, find, glob, group, plan, rule, source, step
from labmake.engine.plan import env, listdir, need, read_csv, read_json, read_text
from labmake.recipes import py, r, script, sh

__version__ = "0.1.0"

__all__ = [
    "each",
    "env",
    "find",
    "glob",
    "group",
    "listdir",
    "need",
    "plan",
    "py",
    "r",
    "read_csv",
    "read_json",
    "read_text",
    "rule",
    "script",
    "sh",
    "source",
    "step",
]

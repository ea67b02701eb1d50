"""labmake: Make for the lab. The names that script.py, rules.py, plans and notebooks use; nothing else.

They are imported when they are first used: the command starts through this package, and reading all of it would cost
each call, also one that finds nothing to do, 40 ms.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from labmake.api import each, find, glob, group, plan, rule, source, step
    from labmake.cli.handing import load
    from labmake.engine.plan import env, listdir, need, read_csv, read_json, read_text
    from labmake.recipes import julia, py, r, script, sh

__version__ = "0.1.0"

__all__ = [
    "each",
    "env",
    "find",
    "glob",
    "group",
    "julia",
    "listdir",
    "load",
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

_ROOMS = {
    "labmake.api": ("each", "find", "glob", "group", "plan", "rule", "source", "step"),
    "labmake.cli.handing": ("load",),
    "labmake.engine.plan": ("env", "listdir", "need", "read_csv", "read_json", "read_text"),
    "labmake.recipes": ("julia", "py", "r", "script", "sh"),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> "Any":
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"labmake has no {name}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)

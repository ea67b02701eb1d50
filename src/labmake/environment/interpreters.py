"""Which Python a word of a command starts, and where that one looks for modules."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, MutableMapping

from labmake.environment.installed import outside, own_path
from labmake.frozen import frozen
from labmake.model import Json, digest_of

_ASK = """import sys, json
print(json.dumps([sys.implementation.name, *map(str, sys.version_info[:2]), sys.prefix, sys.path]))"""

VARIABLES = ("PATH", "HOME", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX")
"""Variables that decide which interpreter a word starts, and its path."""


@frozen
class Python:
    """An interpreter: what an environment says of it, where it finds installed modules, files that decide that."""

    line: str
    path: tuple[str, ...]
    watched: tuple[str, ...] = ()


def own(root: str) -> Python:
    """The interpreter that runs labmake, and with it all Python steps."""
    return Python(_line(sys.implementation.name, *map(str, sys.version_info[:2])), tuple(own_path(root)))


def named(word: str, root: str, variables: Mapping[str, str], memo: MutableMapping[str, Json]) -> Python | None:
    """The interpreter that `word` starts in a step with these variables; None if there is none, or it does not run.

    labmake's own is known; another is asked once (20 ms), and again when it, its virtual environment or a variable that
    moves its path is another.
    """
    import shutil

    path = shutil.which(word, path=variables.get("PATH"))
    if path is None:
        return None
    beside = os.path.dirname(os.path.abspath(path)) == os.path.dirname(os.path.abspath(sys.executable))
    if beside and os.path.realpath(path) == os.path.realpath(sys.executable):
        return own(root)
    real = os.path.realpath(path)
    config = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(path))), "pyvenv.cfg")
    about = [path, real, *(f"{name}={variables.get(name)}" for name in VARIABLES)]
    key = f"python {digest_of(json.dumps([*about, _stamp(real), _stamp(config)]).encode())}"
    known = memo.get(key)
    if not isinstance(known, list):
        known = _ask(path, variables)
        if known is None:
            return None
        memo[key] = known
    name, major, minor, prefix, folders = known
    return Python(_line(name, major, minor), tuple(outside(folders, root, prefix)), (path, real, config))


def _line(name: str, major: str, minor: str) -> str:
    return f"python {'CPython' if name == 'cpython' else name} {major}.{minor}"


def _stamp(path: str) -> list[int]:
    try:
        seen = os.stat(path)
    except OSError:
        return []
    return [seen.st_size, seen.st_mtime_ns]


def _ask(path: str, variables: Mapping[str, str]) -> list[Json] | None:
    import subprocess

    try:
        command = [path, "-c", _ASK]
        said = subprocess.run(command, cwd="/", env=dict(variables), capture_output=True, text=True, check=True)
        name, major, minor, prefix, folders = json.loads(said.stdout.splitlines()[-1])
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return None
    return [name, major, minor, prefix, [folder for folder in folders if folder]]

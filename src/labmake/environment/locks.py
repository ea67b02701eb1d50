"""Lock files of a project: their digests, and the versions that they ask for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from labmake.environment.metadata import normal
from labmake.model import Digest

NAMES = ("poetry.lock", "uv.lock", "pylock.toml", "requirements.txt", "flake.lock", "renv.lock", "Manifest.toml")
"""Files at the root that say which software a project wants: a trace records their digests."""

PYTHON = NAMES[:4]
"""Those with versions of Python distributions."""

KIND = "locked 1"
"""Names `locked` in a memo; the number is raised with the code."""

_PINNED = r"([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*===?\s*([\w.!+-]+)\s*(?:[;#\\].*|--hash.*)?"


def digests(digest: Callable[[str], Digest]) -> dict[str, Digest]:
    """The digests of those lock files that exist; `digest` gives that of a project file and raises OSError."""
    found: dict[str, Digest] = {}
    for name in NAMES:
        try:
            found[name] = digest(name)
        except OSError:
            continue
    return found


def locked(source: bytes, path: str) -> dict[str, list[str]]:
    """The versions that a lock file asks for, by normalised name; several if they depend on the interpreter.

    Of a requirements file the lines with `==`. What cannot be read locks nothing: other programs tell what is wrong.
    """
    text = source.decode("utf-8", "replace")
    if path.endswith(".txt"):
        pairs = [found.groups() for line in text.splitlines() if (found := re.fullmatch(_PINNED, line.strip()))]
    else:
        import tomllib

        try:
            pairs = list(_packages(tomllib.loads(text)))
        except tomllib.TOMLDecodeError:
            pairs = []
    found_versions: dict[str, list[str]] = {}
    for name, version in pairs:
        found_versions.setdefault(normal(name), []).append(version)
    return found_versions


def _packages(value: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, version) of each package in a poetry.lock or uv.lock (`package`) or a pylock.toml (`packages`)."""
    listed = value.get("package") or value.get("packages") or []
    found = []
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("version"), str):
            found.append((one["name"], one["version"]))
    return found

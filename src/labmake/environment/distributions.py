"""The software around a step as a text: interpreter, platform, installed distributions, lock files."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from labmake.model import Digest

TOOLS = ("Rscript", "julia")


def installed(path: Iterable[str] | None = None) -> tuple[tuple[str, str], ...]:
    """(normalised name, version) of every distribution on `path` (sys.path), sorted, without labmake itself.

    The first folder of `path` that has a distribution wins; two versions in one folder are both given, since only one
    of them is importable and the names do not tell which. Read from the names of `*.dist-info` and `*.egg-info`
    (PEP 376, PEP 503) alone: reading 200 METADATA files would cost 20 ms in each build.
    """
    found: dict[str, str] = {}
    for folder in dict.fromkeys(os.path.realpath(entry or ".") for entry in (sys.path if path is None else path)):
        here: dict[str, set[str]] = {}
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        for entry in names:
            if entry.endswith((".dist-info", ".egg-info")):
                name, version = _name_and_version(entry)
                here.setdefault(name, set()).add(version)
        for name, versions in here.items():
            found.setdefault(name, ",".join(sorted(versions)))
    found.pop("labmake", None)
    return tuple(sorted(found.items()))


def environment_text(lock_files: Mapping[str, Digest], tools: Sequence[str] = TOOLS) -> str:
    """The environment as lines: Python, platform, every distribution, interpreters among `tools`, lock files.

    `lock_files` maps the names of lock files that count (see `root_locks`) to their digests.
    """
    lines = [
        f"python {_implementation()} {sys.version_info[0]}.{sys.version_info[1]}",
        f"platform {sys.platform}-{os.uname().machine}",
        *(f"{name} {version}".rstrip() for name, version in installed()),
        *(line for tool in tools for line in _tool(tool)),
        *(f"{name} {digest}" for name, digest in sorted(lock_files.items())),
    ]
    return "\n".join(lines) + "\n"


def root_locks(digest: Callable[[str], Digest], names: Sequence[str] = ("flake.lock",)) -> dict[str, Digest]:
    """The digests of those of these project files that exist; `digest` raises FileNotFoundError for others."""
    found: dict[str, Digest] = {}
    for name in names:
        try:
            found[name] = digest(name)
        except FileNotFoundError:
            continue
    return found


def _name_and_version(entry: str) -> tuple[str, str]:
    """`Foo_bar-1.0-py3.11.egg-info` → ("foo-bar", "1.0"); a development install's egg-info has no version."""
    name, _, rest = entry.rpartition(".")[0].partition("-")
    version = re.sub(r"-py\d+(\.\d+)*(-.*)?$", "", rest)
    return re.sub(r"[-_.]+", "-", name).lower(), version


def _implementation() -> str:
    name = sys.implementation.name
    return "CPython" if name == "cpython" else name


def _tool(name: str) -> list[str]:
    """An interpreter on PATH by its binary: asking it for its version would take R 0.2 s in each build."""
    path = shutil.which(name)
    if path is None:
        return []
    real = os.path.realpath(path)
    stat = os.stat(real)
    return [f"{name} {real} {stat.st_size} {stat.st_mtime_ns}"]

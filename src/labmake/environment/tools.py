"""The version of a program as it tells it: asked once, and again when the program's file is another."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, MutableMapping

from labmake.model import Json

_VERSION = re.compile(r"\d+(?:\.\d+)+\S*")


def version_of(
    program: str, variables: Mapping[str, str], memo: MutableMapping[str, Json]
) -> tuple[str, tuple[str, ...]]:
    """(the version that `program --version` tells, the files that decide it); ("", ()) if there is no such program."""
    path = shutil.which(program, path=variables.get("PATH"))
    if path is None:
        return "", ()
    real = os.path.realpath(path)
    seen = os.stat(real)
    key = f"tool {real} {seen.st_size} {seen.st_mtime_ns}"
    known = memo.get(key)
    if not isinstance(known, str):
        try:
            said = subprocess.run(
                [path, "--version"], env=dict(variables), stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
        except OSError:
            return "", (path, real)
        found = _VERSION.search((said.stdout or said.stderr).decode("utf-8", "replace"))
        known = memo[key] = found[0] if found else "of no known version"
    return known, (path, real)

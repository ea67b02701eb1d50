"""R as it is installed: its version, where its packages lie, and the versions of those that a script attaches.

R itself is asked once (0.2 s), and again only when its program, its start-up files or the variables that move its
libraries are others. Versions come from the packages' DESCRIPTION files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from labmake.environment.required import R_BASE
from labmake.frozen import frozen
from labmake.model import Json, digest_of

PROFILE = (".Rprofile",)
"""Files at the project's root that may set where packages lie."""

VARIABLES = ("HOME", "PATH", "R_HOME", "R_LIBS", "R_LIBS_USER", "R_LIBS_SITE", "RENV_PATHS_CACHE")
"""Variables that decide where R and its packages lie."""

_ASK = 'cat(as.character(getRversion()), R.home("etc"), .libPaths(), sep = "\\n")'
_NAMES = re.compile(r"([A-Za-z][A-Za-z0-9.]*)\s*(?:\([^)]*\))?")


@frozen
class R:
    """An R: its version, the folders in which it looks for packages, and the files that decide both."""

    version: str
    libraries: tuple[str, ...]
    watched: tuple[str, ...]


def find(
    root: Path,
    program: str,
    variables: Mapping[str, str],
    memo: MutableMapping[str, Json],
    digest: Callable[[str], str],
) -> R | None:
    """The R that `program` (Rscript) starts in a step with these variables; None if there is none, or it does not run.

    `digest` gives the digest of a file, and raises OSError if there is none.
    """
    path = shutil.which(program, path=variables.get("PATH"))
    if path is None:
        return None
    home = variables.get("HOME", "")
    about = [path, os.path.realpath(path), *(f"{name}={variables.get(name)}" for name in VARIABLES)]
    personal = [os.path.join(home, name) for name in (".Renviron", ".Rprofile")] if home else []
    files = [*personal, *(str(root / name) for name in PROFILE)]
    seen = os.stat(path)
    about += [str(seen.st_size), str(seen.st_mtime_ns), *(_digest(file, digest) for file in files)]
    key = f"R {digest_of(json.dumps(about).encode())}"
    known = memo.get(key)
    if not isinstance(known, list):
        known = _ask(root, path, variables)
        if known is None:
            return None
        memo[key] = known
    version, etc, *libraries = known
    site = [os.path.join(etc, name) for name in ("Renviron", "Renviron.site", "Rprofile.site")]
    return R(version, tuple(libraries), (path, os.path.realpath(path), *files, *site))


def _digest(path: str, digest: Callable[[str], str]) -> str:
    try:
        return digest(path)
    except OSError:
        return ""


def _ask(root: Path, path: str, variables: Mapping[str, str]) -> list[str] | None:
    """[version, folder of R's configuration, library, …] as R tells them in a folder with the project's profile."""
    with tempfile.TemporaryDirectory() as folder:
        for name in PROFILE:
            if (root / name).is_file():
                shutil.copyfile(root / name, os.path.join(folder, name))
        # A profile may need more of the project than is here (renv's does): then R tells where it looks without it.
        for more in ([], ["--no-init-file"]):
            command = [path, *more, "-e", _ASK]
            try:
                said = subprocess.run(command, cwd=folder, env=dict(variables), capture_output=True, text=True)
            except OSError:
                return None
            lines = [line for line in said.stdout.splitlines() if line.strip()]
            while lines and not re.fullmatch(r"\d+(\.\d+)+", lines[0]):  # a profile may print, too
                lines = lines[1:]
            if said.returncode == 0 and len(lines) > 1:
                return lines
    return None


def versions(r: R, packages: Iterable[str], about: Callable[[str], Mapping[str, Any]]) -> dict[str, str]:
    """The versions of these packages and of all that they need; "" for one that is not installed.

    `about` gives what describe says of the DESCRIPTION file at a path, and raises OSError if there is none.
    """
    found: dict[str, str] = {}
    waiting = [name for name in packages if name not in R_BASE]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = ""
        for library in r.libraries:
            try:
                said = about(os.path.join(library, name, "DESCRIPTION"))
            except OSError:
                continue
            found[name] = said["version"]
            waiting += said["needs"]
            break
    return found


def all_packages(r: R) -> list[str]:
    """The names of all packages that are installed, but those that come with R."""
    names: set[str] = set()
    for library in r.libraries:
        try:
            names.update(name for name in os.listdir(library) if _NAMES.fullmatch(name))
        except OSError:
            continue
    return sorted(name for name in names - R_BASE if name != "translations")


def describe(source: bytes, _: str) -> dict[str, Any]:
    """`version` and `needs` (packages) in a DESCRIPTION file; if it came from a repository of code, with its commit."""
    text = re.sub(r"\n[ \t]+", " ", source.decode("utf-8", "replace"))
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    needs = ",".join(fields.get(field, "") for field in ("Depends", "Imports", "LinkingTo"))
    names = [found[1] for part in needs.split(",") if (found := _NAMES.match(part.strip()))]
    commit = fields.get("RemoteSha", "").strip()
    version = fields.get("Version", "").strip()
    return {
        "version": version + (f" ({commit[:12]})" if len(commit) == 40 else ""),
        "needs": sorted({name for name in names if name not in R_BASE and name != "R"}),
    }


KIND = "R description 1"
"""Names describe in a memo; the number is raised with the code."""

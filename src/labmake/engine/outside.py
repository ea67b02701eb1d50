"""What a step did beside its rule: files that it read or wrote outside of its folder, where it connected to, and
inputs that it never opened. The software that it runs on is no stray: a table says where that lies."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePath

import labmake
from labmake.executors.strace import Seen
from labmake.frozen import frozen
from labmake.layout import Project

SYSTEM = """/usr /bin /sbin /lib /lib32 /lib64 /libx32 /opt /nix /snap /etc /proc /dev /sys /run /boot
/var/lib /var/cache /gnu /System /Library""".split()
"""Where a machine has its software and its devices."""

CACHES = ".cache/fontconfig .fontconfig .fonts .local/share/fonts .nv .cache/mesa_shader_cache .terminfo R".split()
"""Of the home folder: caches that change no result, fonts, and the packages that a person installed for R."""

SOFTWARE = """VIRTUAL_ENV CONDA_PREFIX R_HOME R_LIBS R_LIBS_USER R_LIBS_SITE RENV_PATHS_CACHE JULIA_DEPOT_PATH CUDA_HOME
CUDA_PATH LD_LIBRARY_PATH NIX_PROFILES MPLCONFIGDIR TEXMFVAR""".split()
"""Variables that name folders of software."""

_BOX = re.compile(r"/box\d+(?:/|$)")


@frozen
class Strays:
    """`read`, `listed` and `wrote`: absolute paths, or from the project's root where they lie there; `connected`:
    addresses; `unused`: inputs, in words. `looked` is False if nobody looked at the step."""

    read: Sequence[str] = ()
    listed: Sequence[str] = ()
    wrote: Sequence[str] = ()
    connected: Sequence[str] = ()
    unused: Sequence[str] = ()
    looked: bool = False


def strays(project: Project, inputs: Mapping[str, Sequence[str]], folder: str, runs: Sequence[Seen | None]) -> Strays:
    """The strays of the runs of one step with these inputs (name → places), whose step folders lie in `folder`: what
    any of them shows counts."""
    looked = [run for run in runs if run is not None]
    if not looked:
        return Strays()
    roots = _software(str(project.root), str(project.state))

    def outside(paths: Iterable[str]) -> list[str]:
        return sorted(_from_root(project, path) for path in paths if not _is_known(path, folder, roots, project.root))

    wrote = {path for run in looked for path in run.wrote}
    read = {path for run in looked for path in run.read}
    return Strays(
        read=outside(read - wrote),
        listed=outside({path for run in looked for path in run.listed}),
        wrote=outside(wrote),
        connected=sorted({one for run in looked for one in run.connected if not one.endswith(":53")}),
        unused=_unused(inputs, {_place(path) for path in read | wrote}),
        looked=True,
    )


def _is_known(path: str, folder: str, roots: frozenset[str], project: Path) -> bool:
    """Whether a path is the run's own or of the software. A project in a folder of software is the project all the
    same, and an environment in the project is software."""
    if _within(path, folder):
        return True
    inside = _within(path, str(project))
    return any(_within(path, root) for root in roots if not inside or _within(root, str(project)))


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _from_root(project: Project, path: str) -> str:
    return os.path.relpath(path, project.root) if _within(path, str(project.root)) else path


@lru_cache(maxsize=4)
def _software(project: str, state: str) -> frozenset[str]:
    """The folders in which this machine, this environment and labmake have their software."""
    import site

    roots = {*SYSTEM, sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(labmake.__file__)}
    roots.add(site.getusersitepackages())
    roots |= {f"{state}/cache", *(os.path.expanduser(f"~/{name}") for name in CACHES)}
    for name in SOFTWARE:
        roots.update(re.split(r"[:;]", os.environ.get(name, "")))
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        above, name = os.path.split(folder.rstrip("/"))
        roots.add(folder)
        if name in ("bin", "sbin", "shims", "scripts") and above not in ("", "/", os.path.expanduser("~")):
            roots.add(above)
    roots.update(sys.path)  # what is installed for development elsewhere is software too
    roots |= {os.path.realpath(root) for root in roots if root}
    own = tuple(path for path in (sys.prefix, f"{state}/cache") if _within(path, project))
    return frozenset(
        root
        for root in roots
        # Of what lies in the project, only the environment is software: the rest is the project's own code.
        if root.startswith("/") and root != "/" and (not _within(root, project) or any(_within(root, o) for o in own))
    )


def _place(path: str) -> str:
    """The place in its step folder of a path in one; "" for others."""
    found = _BOX.search(path)
    return path[found.end() :] if found else ""


def _unused(inputs: Mapping[str, Sequence[str]], opened: set[str]) -> list[str]:
    """The inputs of which nothing was opened, with their places, and those of which not all was."""
    used = opened | {str(folder) for place in opened for folder in PurePath(place).parents}
    told = []
    for name, places in inputs.items():
        never = [place for place in places if place.rstrip("/") not in used]
        if not never:
            continue
        if len(never) == len(places):
            told.append(f"{name} ({places[0]}{f' and {len(places) - 1} more' if len(places) > 1 else ''})")
        else:
            told.append(f"{len(never)} of {len(places)} files of {name}, such as {never[0]}")
    return told

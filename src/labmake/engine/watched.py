"""What a build looked at, with the stats that it saw: the content of gear 1's snapshot.

A stat is taken from where the build took it: targets' from their facts, sources' from the stat cache. Of the rest (rule
files, modules, listed folders, git's head, where packages are installed) it is taken now, and counts only if it lies
before the command began, for then it is the one that was read. A folder that is younger counts if it lists what it
listed (a first build makes generated/ in the project's root), or if it is a folder target's and holds what was placed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Set
from typing import Any

from labmake.engine.build import Build
from labmake.engine.services import Services
from labmake.engine.snapshot import four, write
from labmake.environment.code_tree import Tree
from labmake.errors import StoreError
from labmake.layout import GENERATED, SCRIPTS
from labmake.seams import GRANULARITY
from labmake.store.digest import parse_manifest

VARIABLES = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LABMAKE_IN_STEP")
"""Environment variables that decide what is found, beside those that plans and rule files ask for."""


def keep_snapshot(services: Services, build: Build, asked: str, told: str) -> bool:
    """Write the snapshot of a build that brought all it was asked for; False if something is too young to trust."""
    placed, absent = _placed(build)
    looked: dict[str, tuple[int, int, int, int]] = {}
    for path, known in inside(services, services.stats.used).items():
        if known is not None:
            looked[path] = known
        elif os.path.lexists(services.absolute(path)):
            return False
        else:
            absent.append(path)
    now = services.stats.clock()
    own: dict[str, set[str]] | None = None
    for path in _others(services, build):
        try:
            seen = four(os.lstat(path))
        except OSError:
            absent.append(path)
            continue
        stamp = max(seen[1], seen[3])
        if stamp >= services.began - GRANULARITY:
            own = _own_folders(services, build) if own is None else own
            same = _holds_only(path, own[path]) if path in own else _lists_the_same(services, path)
            if not (same and stamp < now - GRANULARITY):
                return False
        looked.setdefault(path, seen)
    variables = {name: os.environ.get(name) for name in VARIABLES} | services.variables
    write(str(services.project.state), asked, variables, str(services.project.root), placed, looked, absent, told)
    return True


def inside(services: Services, used: Mapping[str, Any]) -> dict[str, Any]:
    """What was digested, by paths relative to the root: short ones are quicker to look up, and tell files from code."""
    root = os.path.join(services.project.root, "")
    return {path.removeprefix(root): known for path, known in used.items()}


def _lists_the_same(services: Services, path: str) -> bool:
    """Whether a folder that was listed for code still has the same files and folders, but for generated/."""
    folder = os.path.relpath(path, os.path.realpath(services.project.root))
    before = services.code.tree.listed.get("" if folder == "." else folder)
    if before is None or (services.looked and path in {os.path.realpath(looked) for looked in services.looked}):
        return False
    after = Tree(services.project.root).listing("" if folder == "." else folder)
    return before[0] == after[0] and before[1] | {GENERATED} == after[1] | {GENERATED}


def _own_folders(services: Services, build: Build) -> dict[str, set[str]]:
    """Of every folder in a folder target, by its real path, the names that were placed there."""
    found: dict[str, set[str]] = {}
    for made in build.outcome.made.values():
        for target, (digest, _) in made.fact.outputs.items():
            if not target.endswith("/"):
                continue
            try:
                entries = parse_manifest(services.blobs.read(digest))
            except StoreError:
                continue
            top = os.path.realpath(services.absolute(target))
            found[top] = set()
            for entry in entries:
                folder, rest = top, entry.path
                while rest:
                    name, _, rest = rest.partition("/")
                    found.setdefault(folder, set()).add(name)
                    folder = os.path.join(folder, name)
                if entry.kind == "d":
                    found[folder] = set()
    return found


def _holds_only(folder: str, names: Set[str]) -> bool:
    """Whether a folder of a folder target, made by this build, has what was placed there and nothing else."""
    try:
        return set(os.listdir(folder)) == names
    except OSError:
        return False


def looked_at(services: Services, build: Build) -> set[str]:
    """Absolute paths of all that a build looked at, whether it succeeded or not; targets are not among them."""
    return {services.absolute(path) for path in services.stats.used} | set(_others(services, build))


def _placed(build: Build) -> tuple[dict[str, tuple[int, int, int]], list[str]]:
    """The files of all targets with the stats with which they were placed, and those that were removed again."""
    found: dict[str, tuple[int, int, int]] = {}
    removed: list[str] = []
    for made in build.outcome.made.values():
        for path, (_, stats) in made.fact.outputs.items():
            if isinstance(stats, dict):
                found.update({path + name: tuple(stat) for name, stat in stats.items()})
            elif stats is None:
                removed.append(path.rstrip("/"))
            else:
                found[path] = stats
    return found, removed


def _others(services: Services, build: Build) -> list[str]:
    """Absolute paths whose state decided: everything but targets and digested files."""
    root = str(services.project.root)
    experiments = os.path.join(root, SCRIPTS)
    paths = set(services.looked)
    paths.update(os.path.join(root, folder) for folder in services.code.tree.listed)
    paths.update(os.path.join(experiments, name) for name in services.rulebook.experiments)
    paths.update((experiments, os.path.join(root, "rules.py"), os.path.join(str(services.project.state), "..", "HEAD")))
    paths.update(entry for entry in sys.path if entry)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name.partition(".")[0] == "labmake":
            paths.add(file)
    for made in build.outcome.made.values():
        for path in made.fact.outputs:
            if path.endswith("/"):
                paths.update(folder for folder, _, _ in os.walk(services.absolute(path)))
    return sorted({os.path.realpath(path) for path in paths})

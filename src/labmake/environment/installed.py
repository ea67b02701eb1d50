"""What is installed on a Python's path: which distribution an import means, and what that one needs with it.

    memo["installed <digest of the path>"]   {metadata's path: [stat of its METADATA, distribution]}

Constraints: asked for in every build that nothing else spares, in environments of 200 distributions; importlib.metadata
takes 90 to 170 ms there. Decision: the metadata are read once, with markers evaluated, and kept under their stats; a
build lists the folders, stats what it finds (3 ms) and reads what is another. Rejected: trusting the stat of
site-packages alone, since a METADATA file that is written in place does not change it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from functools import cached_property
from typing import Any

from labmake.environment.metadata import KIND, SUFFIXES, Distribution, as_json, read
from labmake.model import Digest, Json, digest_of

LOOSE = "module:"
"""Before the name of a module that no distribution brings: what it is called in an environment."""

CODE = (*SUFFIXES, ".pyd", ".pyx")
"""Suffixes of files that are the content of a development install."""


class Installed:
    """The distributions of one path by name, and what imports and commands mean there."""

    def __init__(self) -> None:
        self.distributions: dict[str, list[Distribution]] = {}
        """By normalised name: the first folder's; several if it has more than one version, of which one is stale."""
        self.metadata: dict[str, list[str]] = {}
        """By name: the files that its metadata were read from."""
        self.modules: dict[str, list[str]] = {}
        """Module or package → the distributions that bring it."""
        self.above: dict[str, list[str]] = {}
        """Namespace package → the distributions that have a part of it."""
        self.loose: dict[str, str] = {}
        """Module that no distribution brings → its file or folder."""
        self.scripts: dict[str, list[str]] = {}
        """Command → the distributions that bring it."""
        self._contents: dict[str, str] = {}

    def owners(self, module: str) -> list[str]:
        """What an import of a dotted name means: the distributions with the longest match, those of all parts of a
        namespace package, `module:…` for a file of nobody's; [] if nothing of the name is installed."""
        end = len(module)
        while end > 0:
            found = self.modules.get(module[:end])
            if found is not None:
                return found
            end = module.rfind(".", 0, end)
        top = module.partition(".")[0]
        other = (self._source_of(top) or [LOOSE + top]) if top in self.loose else self.hooked.get(top, [])
        end = len(module)
        while end > 0:
            if module[:end] in self.above:
                return [*self.above[module[:end]], *other]
            end = module.rfind(".", 0, end)
        return other

    def _source_of(self, module: str) -> list[str]:
        """The development install in whose folder a module lies."""
        place = self.loose[module]
        return [one.name for one in self.developed if place.startswith(os.path.join(one.source, ""))]

    @cached_property
    def developed(self) -> list[Distribution]:
        """The development installs."""
        return [one for same in self.distributions.values() for one in same if one.source]

    @cached_property
    def hooked(self) -> dict[str, list[str]]:
        """The modules of development installs that lie in no folder of the path: a hook imports them."""
        found: dict[str, list[str]] = {}
        for one in self.developed:
            for module in one.modules or (one.name.replace("-", "_"),):
                found.setdefault(module, []).append(one.name)
        return found

    def with_needs(self, names: Iterable[str]) -> set[str]:
        """These distributions and, of what they need, all that is installed: each with the extras it is asked for."""
        waiting = [(name, "") for name in names]
        seen = set(waiting)
        while waiting:
            name, extra = waiting.pop()
            for one in self.distributions.get(name, ()):
                for other, extras in one.needs.get(extra, ()):
                    for wanted in ("", *extras):
                        if (other, wanted) not in seen:
                            seen.add((other, wanted))
                            waiting.append((other, wanted))
        return {name for name, _ in seen if name in self.distributions or name.startswith(LOOSE)}

    def version(self, name: str, digest: Callable[[str], Digest]) -> str:
        """The version of a distribution as installed, "" if it is not; of a development install or a loose module with
        the digest of its files, which `digest` gives."""
        if name not in self._contents:
            self._contents[name] = self._version(name, digest)
        return self._contents[name]

    def sources(self, name: str) -> list[str]:
        """The files and folders whose content is the version of a development install or a loose module."""
        if name.startswith(LOOSE):
            place = self.loose.get(name.removeprefix(LOOSE))
            return [] if place is None else [place]
        return [place for one in self.distributions.get(name, ()) if one.source for place in self._places(one)]

    def _version(self, name: str, digest: Callable[[str], Digest]) -> str:
        if name.startswith(LOOSE):
            places = self.sources(name)
            return _files_digest(places, digest) if places else ""
        told = []
        for one in self.distributions.get(name, ()):
            places = self._places(one) if one.source else []
            told.append(f"{one.version} ({_files_digest(places, digest)})" if places else one.version)
        return ",".join(sorted(told))

    def _places(self, one: Distribution) -> list[str]:
        """The files and folders that a development install imports: those of its modules, else its whole folder."""
        mapped = [place for _, place in one.places]
        inside = os.path.join(one.source, "")
        own = [place for place in self.loose.values() if place.startswith(inside) and _is_regular(place)]
        return mapped or own or [one.source]

    def faults(self, name: str) -> list[str]:
        """What of a distribution's metadata could not be read."""
        return [one.fault for one in self.distributions.get(name, ()) if one.fault]


def own_path(root: str) -> list[str]:
    """The folders in which a step of this interpreter looks for modules that are neither its project's nor Python's.

    As executors.pystep makes it: folders inside the project are left out unless this interpreter lies there too, and so
    is the folder of the program that runs, which a step does not have (-P).
    """
    return outside(sys.path if sys.flags.safe_path else sys.path[1:], root, sys.prefix)


def outside(path: Iterable[str], root: str, prefix: str) -> list[str]:
    """The folders of a Python's path without those of its standard library and of the project."""
    inside = os.path.join(root, "")
    library = os.path.dirname(os.path.realpath(os.__file__))
    found: dict[str, None] = {}
    for entry in path:
        real = os.path.realpath(entry) if entry else inside
        project = os.path.join(real, "").startswith(inside) and not entry.startswith(prefix)
        if not project and real not in (library, os.path.join(library, "lib-dynload")) and not real.endswith(".zip"):
            found[real] = None
    return list(found)


def look(path: Sequence[str], root: str, memo: MutableMapping[str, Json], settled: Callable[[int], bool]) -> Installed:
    """What is installed on `path`, without what is code of the project at `root` and without labmake.

    `memo` keeps what was read; `settled` says whether a time stamp (ns) is old enough that a later change of the file
    shows in its stat.
    """
    key = f"installed {digest_of(chr(0).join([KIND, sys.version, *path]).encode())}"
    known = memo.get(key)
    kept: dict[str, Any] = known if isinstance(known, dict) else {}
    now: dict[str, Any] = {}
    found = Installed()
    taken: set[str] = set()
    for folder in path:
        names = _listing(folder)
        here: list[Distribution] = []
        for entry in sorted(name for name in names if name.endswith((".dist-info", ".egg-info"))):
            where = f"{folder}/{entry}"
            one = _read(folder, entry, kept.get(where), now, settled)
            if one.name != "labmake" and not (one.source and _is_inside(one.source, root)):
                here.append(one)
                found.metadata.setdefault(one.name, []).extend(_files(where))
        _enter(found, folder, names, here, taken)
    if now != kept:
        memo[key] = now
    found.loose.pop("labmake", None)
    return found


def _read(folder: str, entry: str, kept: Any, now: dict[str, Any], settled: Callable[[int], bool]) -> Distribution:
    where = f"{folder}/{entry}"
    (file,) = _files(where)
    stat = _stat(file) or _stat(where)
    if isinstance(kept, list) and kept[0] == stat:
        try:
            now[where] = kept
            return Distribution(*kept[1])
        except TypeError:  # damaged
            pass
    one = read(folder, entry)
    if stat and settled(max(stat[2:])):
        now[where] = [stat, as_json(one)]
    return one


def _files(where: str) -> list[str]:
    return [f"{where}/METADATA" if where.endswith(".dist-info") else f"{where}/PKG-INFO"]


def _stat(path: str) -> list[int]:
    try:
        seen = os.stat(path)
    except OSError:
        return []
    return [seen.st_size, seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns]


def _listing(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _is_inside(path: str, root: str) -> bool:
    return os.path.join(path, "").startswith(os.path.join(os.path.realpath(root), ""))


def _enter(found: Installed, folder: str, names: Iterable[str], here: Sequence[Distribution], taken: set[str]) -> None:
    """Enter what one folder of the path has; `taken` are the modules of the folders before, which hide its own."""
    fresh = [one for one in here if one.name not in found.distributions]
    claims: dict[str, list[str]] = {}
    for one in fresh:
        found.distributions.setdefault(one.name, []).append(one)
        for script in one.scripts:
            found.scripts.setdefault(script, []).append(one.name)
        for module in dict(one.places) if one.source else one.modules:
            if module.partition(".")[0] not in taken:
                claims.setdefault(module, []).append(one.name)
    tops = {module.partition(".")[0] for module in claims}
    for module, owners in claims.items():
        found.modules.setdefault(module, []).extend(owners)
        end = module.rfind(".")
        while end > 0:
            above = found.above.setdefault(module[:end], [])
            above.extend(name for name in owners if name not in above)
            end = module.rfind(".", 0, end)
    taken.update(module for module in claims if "." not in module)
    for module, place in _loose(folder, names):
        if module in tops or module in taken or module in found.loose:
            continue
        regular = _is_regular(place)
        if regular or os.path.isdir(place):
            found.loose[module] = place
        if regular:
            taken.add(module)


def _loose(folder: str, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The modules and folders in a folder of the path by name."""
    for name in names:
        if name.isidentifier():
            yield name, f"{folder}/{name}"
            continue
        suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
        module = name.removesuffix(suffix)
        if suffix and module.isidentifier():
            yield module, f"{folder}/{name}"


def _is_regular(place: str) -> bool:
    return place.endswith(SUFFIXES) or any(os.path.exists(f"{place}/__init__{suffix}") for suffix in SUFFIXES)


def files_of(place: str) -> Iterator[str]:
    """The code files in a folder, sorted, or the file itself; hidden and cache folders are left out."""
    if not os.path.isdir(place):
        yield place
        return
    for base, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        yield from (os.path.join(base, name) for name in sorted(names) if name.endswith(CODE))


def folders_of(place: str) -> Iterator[str]:
    """The folders in which files_of looks."""
    for base, folders, _ in os.walk(place):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        yield base


def _files_digest(places: Iterable[str], digest: Callable[[str], Digest]) -> str:
    lines = []
    for place in places:
        above = os.path.dirname(place)
        for path in files_of(place):
            try:
                lines.append(f"{os.path.relpath(path, above)} {digest(path)}")
            except OSError:  # a link to nowhere: nobody imports it
                continue
    return digest_of("\n".join(sorted(lines)).encode())[:12]


def plain_digest(path: str) -> Digest:
    """The digest of a file, without any cache."""
    with open(path, "rb") as file:
        return digest_of(file.read())


def mismatches(locked: Mapping[str, Sequence[str]], versions: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(name, locked, installed) of each distribution among `versions` that a lock file has in other versions only."""
    found = []
    for name, version in sorted(versions.items()):
        plain = version.partition(" ")[0]
        wanted = locked.get(name)
        if wanted and plain and plain not in wanted and not _equal(plain, wanted):
            found.append((name, " or ".join(sorted(wanted)), plain))
    return found


def _equal(version: str, wanted: Iterable[str]) -> bool:
    """Whether a version is one of those in another spelling: 1.0 is 1.0.0, and a local part (`+cu121`) may be added."""
    from packaging.version import InvalidVersion, Version

    try:
        one = Version(version)
        return any(Version(other) in (one, Version(one.public)) for other in wanted)
    except InvalidVersion:
        return False

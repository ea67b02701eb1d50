"""Collection: what of labmake's state nobody needs any more, how much that is, and taking it away.

Constraints: a build that runs must never lose a blob that it has looked up and is about to use, or that a step of its
has just stored and no fact names yet; builds of all worktrees and users share the store. Decision: a collection and
builds exclude each other (see sharing) for the second that removing takes, not while it asks; then everything is looked
at again. Segments are never changed in place: what lives is written to new ones, whose names
were never used, so an index that still knows the old ones notices. Rejected: collecting beside builds, with a grace
time for young blobs, since a build may restore a result that is a year old.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from labmake.frozen import frozen
from labmake.model import Digest
from labmake.store.index import Location
from labmake.store.leases import TABLE
from labmake.store.live import View, living, use_time, view
from labmake.store.segments import compact, segment_bytes

KEEP_DAYS = 30
"""Days for which a result that no worktree has is kept after it was last used."""

ASIDE_DAYS = 90
"""Days for which what was set aside is kept: it may be the only copy of a person's work."""

DAY = 86400.0


# What nobody needs


@frozen
class Known:
    """What the state files of all worktrees know: digests that facts name, nodes that fail, state files to remove."""

    roots: Collection[Digest]
    failing: Collection[str]
    """Names of the folders in failed/ of nodes that fail."""
    abandoned: Collection[Path] = ()


@dataclass
class Part:
    """One kind of thing that may go: what it is, and its files and folders with their sizes in bytes."""

    what: str
    paths: dict[Path, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(self.paths.values())


@dataclass
class Rubbish:
    """What may go, part by part, and of the records in segments those that stay."""

    parts: list[Part]
    kept: dict[str, list[tuple[str, str, Location]]]
    """Segment with something to remove → (key, kind, location) of the records that stay."""
    records: int
    """How many blobs and traces are records that may go."""
    size: int
    """Bytes of these records."""


def survey(state: Path, known: Known, days: float, now: float) -> Rubbish:
    """What of labmake's `state` folder nobody needs: not known and not used for `days`, at `now` (seconds)."""
    store = state / "store"
    since = int((now - days * DAY) * 1e9)
    seen = view(store)
    try:
        live = living(seen, known.roots, since)
        large = _large_blobs(store / "blobs", live, since)
        kept, records, size = _records(seen, live, {path.name for path in large}, since)
    finally:
        seen.close()
    parts = [
        Part("results", large),
        Part("damaged results", _all_in(store / "corrupt")),
        Part("unfinished files", _all_in(store / "tmp")),
        Part("folders of steps that were killed", _steps(state / "steps", since)),
        Part("exported commits of commands that were killed", _steps(state / "blame", since)),
        Part(f"pictures older than {ASIDE_DAYS} days", _older(state / "pictures", now - ASIDE_DAYS * DAY)),
        Part("folders of failures that are mended", _failed(state / "failed", known.failing)),
        Part("checkpoints of steps that were not tried again", _checkpoints(state / "checkpoints", since)),
        Part(f"files set aside more than {ASIDE_DAYS} days ago", _older(state / "aside", now - ASIDE_DAYS * DAY)),
        Part("state of worktrees that are gone", _states(state / "state", known.abandoned)),
        Part("snapshots of old questions", _older(state / "state" / "gear1", since / 1e9)),
        Part("leases of builds that were killed", _leases(state / "leases")),
    ]
    return Rubbish([part for part in parts if part.paths], kept, records, size)


def _records(
    seen: View, live: Collection[Digest], going: Collection[str], since: int
) -> tuple[dict[str, list[tuple[str, str, Location]]], int, int]:
    """Of segments with records that may go, those that stay; how many blobs and traces may go, and all bytes that may.
    `going` are the names of the files of large blobs that may go.

    A record that is there twice, since a collection was killed, stays once.
    """
    kept: dict[str, list[tuple[str, str, Location]]] = {}
    told: set[tuple[str, str, bytes]] = set()
    gone, size = 0, 0
    for name, items in seen.segments.items():
        staying = []
        dead = doubled = 0
        for key, kind, location in items:
            if not _stays(seen, kind, key, location, live, going, since):
                gone += kind in "BT"
                dead += 1
                continue
            same = (kind, key, b"" if kind == "B" else seen.payload(location))
            doubled += location[2] if same in told else 0
            if same not in told:
                told.add(same)
                staying.append((key, kind, location))
        # Two workers may store the same small thing; only after a collection that was killed most is there twice.
        if dead or doubled > sum(location[2] for _, _, location in items) / 2:
            kept[name] = staying
            size += os.stat(seen.store / "segments" / name).st_size - segment_bytes(staying)
    return kept, gone, size


def _stays(
    seen: View, kind: str, key: str, location: Location, live: Collection[Digest], going: Collection[str], since: int
) -> bool:
    if kind == "U":
        return use_time(seen.payload(location)) >= since
    if kind == "L":
        return key[:64] not in going and (seen.store / "blobs" / key[:2] / key[:64]).exists()
    return key in live


def _large_blobs(folder: Path, live: Collection[Digest], since: int) -> dict[Path, int]:
    """Files of blobs that are not alive and lie there for long. One that a worktree shares frees nothing by itself."""
    names = {digest[:64] for digest in live}
    found = {}
    for path in _below(folder):
        status = path.lstat()
        if path.name not in names and max(status.st_mtime_ns, status.st_ctime_ns) < since:
            found[path] = status.st_size if status.st_nlink == 1 else 0
    return found


def _steps(folder: Path, since: int) -> dict[Path, int]:
    """Folders of coordinators that ended: of this host by their number, of others when nothing happened for long."""
    prefix = f"{socket.gethostname()}-"
    found = {}
    for path in _entries(folder):
        number = path.name.removeprefix(prefix)
        if path.name.startswith(prefix) and number.isdigit():
            ended = not is_alive(int(number))
        else:
            ended = path.lstat().st_mtime_ns < since
        if ended:
            found[path] = _size(path)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process with this number runs on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _failed(folder: Path, failing: Collection[str]) -> dict[Path, int]:
    return {path: _size(path) for path in _entries(folder) if path.name not in failing}


def _checkpoints(folder: Path, since: int) -> dict[Path, int]:
    """Checkpoints to which nothing was written for long: no step runs while one collects."""
    return {path: _size(path) for path in _entries(folder) if _written(path) < since}


def _written(folder: Path) -> int:
    """When something in a folder was last written, in nanoseconds."""
    return max(path.lstat().st_mtime_ns for path in (folder, *_below(folder)))


def _older(folder: Path, before: float) -> dict[Path, int]:
    """What in a folder is older than a time: by its name, if that is one (aside/), else by its mtime."""
    return {path: _size(path) for path in _entries(folder) if _time_of(path) < before}


def _time_of(path: Path) -> float:
    found = re.fullmatch(r"(\d{4}-\d{2}-\d{2}-\d{6})(-\d+)?", path.name)
    if found is not None:
        try:
            return time.mktime(time.strptime(found[1], "%Y-%m-%d-%H%M%S"))
        except ValueError:
            pass
    return path.lstat().st_mtime


def _states(folder: Path, abandoned: Collection[Path]) -> dict[Path, int]:
    found = {path: _size(path) for path in _entries(folder) if path.name.endswith(".broken")}
    for database in abandoned:
        for suffix in ("", "-wal", "-shm", ".lock"):
            path = Path(f"{database}{suffix}")
            if path.exists():
                found[path] = _size(path)
    return found


def _leases(folder: Path) -> dict[Path, int]:
    """Lock files that killed builds left: no build runs beside a collection."""
    return {path: 0 for path in _entries(folder) if path.name != TABLE}


def _all_in(folder: Path) -> dict[Path, int]:
    return {path: _size(path) for path in _entries(folder)}


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _below(folder: Path) -> Iterator[Path]:
    for base, _, names in os.walk(folder):
        yield from (Path(base, name) for name in names)


def _size(path: Path) -> int:
    """The bytes that go with a file, or with a folder and all in it."""
    if path.is_dir() and not path.is_symlink():
        return sum(_size(below) for below in _below(path))
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    return status.st_size if status.st_nlink == 1 else 0


# Taking it away


def sweep(state: Path, rubbish: Rubbish) -> list[OSError]:
    """Remove what a survey found, while `alone` is entered; returns what the disk refused.

    A trace that is still there when its blobs are gone does no harm: a blob that is missing is made again.
    """
    refused: list[OSError] = []
    for part in rubbish.parts:
        refused += _remove(part.paths)
    try:
        compact(str(state / "store" / "segments"), rubbish.kept)
    except OSError as error:
        refused.append(error)
    return refused


def _remove(paths: Iterable[Path]) -> list[OSError]:
    refused: list[OSError] = []
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            refused.append(error)
    return refused

"""The stat cache: a file's digest without reading it, as long as its stat proves that it did not change.

The trap is git's "racy" file: the kernel stamps files from a clock that ticks every 1 to 10 ms, so a file that is
hashed and edited within one tick, at the same length, has the stat it had. Therefore a stat is recorded only if its
mtime is older than the clock when hashing began, by more than a tick: any later edit then gets another mtime. A
file that was written a moment ago is hashed again until it is old enough. The clock is the file system's own, not the
machine's: on a network they differ by seconds. A clock that was read too early only makes more files look too young,
so one reading serves for a few milliseconds.

An mtime can be set back (`touch -r`, an archive that is unpacked over the file), a ctime cannot: so the ctime counts
too. Of large files it does not, since the hard links by which steps see them change it, and reading them is dear.
"""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from labmake.model import Digest
from labmake.seams import GRANULARITY, Clock
from labmake.store.digest import hash_file, triple
from labmake.store.state import FileStat, State

_CLOCK_SERVES = 0.005
"""Seconds for which one reading of the file system's clock is used."""

FEW = 64
"""Files that are looked up one by one (20 µs each); if there are more, all are loaded at once (3 µs each)."""

DEAR = 16 << 20
"""Bytes from which a file is hashed beside all else, by a thread of its own: 10 ms."""

LARGE = 1 << 20
"""Bytes above which a step may see a file as a hard link, which changes its ctime."""

_FOREIGN = 60_000_000_000
"""Nanoseconds by which a file on another file system than the project must lie back: its clock may differ from ours,
and is not read, since we may not be allowed to write there."""


class StatCache:
    """Digests of the files of the project at `root`. Changes are collected in `state` and last once it commits."""

    def __init__(self, state: State, root: Path, clock: Clock) -> None:
        self._state = state
        self._root = root
        self._clock = clock
        self._known: dict[str, FileStat] = {}
        self._asked = 0
        """How many paths were looked up one by one; from FEW on all are loaded."""
        self._device = os.stat(root).st_dev
        beside = state.folder
        # A probe in the root would change its mtime, by which a listing of it is known.
        self._probed = beside if os.stat(beside).st_dev == self._device else root
        self._reading = 0
        self._read_at = float("-inf")
        self.used: dict[str, tuple[int, int, int, int] | None] = {}
        """Every path that was asked for, with the stat of its digest; None if that is too young to be trusted."""

    def digest(self, path: str) -> Digest:
        """The plain digest of the file at a project path or an absolute path.

        Raises FileNotFoundError and IsADirectoryError as they come, and what hash_file raises.
        """
        absolute = os.path.join(self._root, path)
        known = self._recorded(path)
        self.used[path] = None
        if known is not None and _seen(os.stat(absolute)) == known[:4]:
            self.used[path] = known[:4]
            return known[4]
        began = self.clock()
        return self.enter(path, began, *hash_file(absolute))

    def is_dear(self, path: str) -> bool:
        """Whether the digest of a file is known only after much has been read."""
        try:
            status = os.stat(os.path.join(self._root, path))
        except OSError:
            return False
        if status.st_size < DEAR or not stat.S_ISREG(status.st_mode):
            return False
        known = self._recorded(path)
        return known is None or _seen(status) != known[:4]

    def enter(self, path: str, began: int, digest: Digest, status: os.stat_result) -> Digest:
        """Enter what hash_file said of a file, if that began when `clock` said `began`; returns the digest."""
        known = self._known.get(path)
        self.used[path] = None
        margin = GRANULARITY if status.st_dev == self._device else _FOREIGN
        if max(status.st_mtime_ns, status.st_ctime_ns) < began - margin and _is_text(path):
            record = (*_seen(status), digest)
            self._known[path] = record
            self.used[path] = record[:4]
            self._state.put_stats({path: record})
        elif known is not None:
            self.forget(path)
        return digest

    def _recorded(self, path: str) -> FileStat | None:
        known = self._known.get(path)
        if known is None and self._asked <= FEW:
            self._asked += 1
            if self._asked > FEW:
                self._known = self._state.stats() | self._known
                return self._known.get(path)
            known = self._state.stat(path) if _is_text(path) else None
            if known is not None:
                self._known[path] = known
        return known

    def forget(self, path: str) -> None:
        """Hashes the file again when it is next asked for."""
        self._known.pop(path, None)
        self._state.drop_stats([path])

    def clock(self) -> int:
        """A reading of the file system's clock, a few milliseconds old at most."""
        moment = time.monotonic()
        if moment - self._read_at > _CLOCK_SERVES:
            self._reading = self._clock.file_system_now(self._probed)
            self._read_at = moment
        return self._reading


def _seen(status: os.stat_result) -> tuple[int, int, int, int]:
    """What of a stat must be the same: size, mtime, inode, and the ctime of a file that is not large."""
    return (*triple(status), status.st_ctime_ns if status.st_size <= LARGE else 0)


def _is_text(path: str) -> bool:
    """Whether a path can be a key of the state file: a name that is not UTF-8 cannot."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True

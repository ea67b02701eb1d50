"""Leases: which build runs an action now. Others wait for it, and then find its trace.

    leases/<hex of the action>    exists while an action runs: empty, and locked by flock by the build that runs it;
                                  on a network file system a lock file with a heartbeat (see lockfiles)

Constraints: builds started apart, also in other worktrees, share a step; a killed build blocks nobody; a holder never
waits for another lease, so there is no deadlock. Decision: flock, which ends with its process, on a file that the
holder unlinks when it is done; a taker makes sure that the file it locked is still the one at that path. Rejected: a
lock file with a process number, which a kill leaves behind and which cannot be told from a number used again; where
flock does not work there is nothing better, with the start of the process and a heartbeat beside the number.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

from labmake.model import Digest
from labmake.store import lockfiles
from labmake.store.digest import hex_of
from labmake.store.filesystem import uses_lock_files
from labmake.store.lockfiles import LockFile


class Leases:
    """The leases of one build in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._held: dict[Digest, int | LockFile] = {}
        os.makedirs(folder, exist_ok=True)
        self._files = uses_lock_files(folder)

    def take(self, action: Digest) -> bool:
        """Take the lease of an action; False while another build has it. Look its trace up again after taking it."""
        held = lockfiles.take(self._path(action)) if self._files else _take_flock(self._path(action))
        if held is not None:
            self._held[action] = held
        return held is not None

    def give_back(self, action: Digest) -> None:
        """End a lease; those who wait for it look for the trace."""
        held = self._held.pop(action, None)
        if isinstance(held, LockFile):
            held.release()
        elif held is not None:
            try:
                os.unlink(self._path(action))
            except OSError:  # an empty file that nobody holds: the next one who wants it takes and removes it
                pass
            finally:
                os.close(held)

    def when_free(self, action: Digest, tell: Callable[[Digest], None]) -> None:
        """Call `tell(action)` from another thread once nobody has its lease."""
        thread = threading.Thread(target=self._wait, args=(action, tell), daemon=True)
        thread.start()

    def _wait(self, action: Digest, tell: Callable[[Digest], None]) -> None:
        try:
            if self._files:
                lockfiles.wait(self._path(action))
            else:
                _wait_flock(self._path(action))
        finally:  # also if the disk does not answer: then it is asked for again, and that error is told
            tell(action)

    def _path(self, action: Digest) -> str:
        return os.path.join(self._folder, hex_of(action))


def _take_flock(path: str) -> int | None:
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder was just done with it


def _wait_flock(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether somebody has a flock on a file, or that cannot be known."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: str) -> bool:
    """Whether an open file is the one at `path`."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

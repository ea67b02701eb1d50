"""Leases: which build runs an action now. Others wait for it, and then find its trace.

    leases/<hex of the action>    empty; exists while an action runs, locked by flock by the build that runs it

Constraints: builds started apart, also in other worktrees, share a step; a killed build blocks nobody; a holder never
waits for another lease, so there is no deadlock. Decision: flock, which ends with its process, on a file that the
holder unlinks when it is done; a taker makes sure that the file it locked is still the one at that path. Rejected: a
lock file with a process number, which a kill leaves behind and which cannot be told from a number used again.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

from labmake.model import Digest
from labmake.store.digest import hex_of


class Leases:
    """The leases of one build in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._held: dict[Digest, int] = {}
        os.makedirs(folder, exist_ok=True)

    def take(self, action: Digest) -> bool:
        """Take the lease of an action; False while another build has it. Look its trace up again after taking it."""
        path = self._path(action)
        while True:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            if _is_at(descriptor, path):
                self._held[action] = descriptor
                return True
            os.close(descriptor)  # its holder was just done with it

    def give_back(self, action: Digest) -> None:
        """End a lease; those who wait for it look for the trace."""
        descriptor = self._held.pop(action, None)
        if descriptor is None:
            return
        try:
            os.unlink(self._path(action))
        finally:
            os.close(descriptor)

    def when_free(self, action: Digest, tell: Callable[[Digest], None]) -> None:
        """Call `tell(action)` from another thread once nobody has its lease."""
        thread = threading.Thread(target=self._wait, args=(action, tell), daemon=True)
        thread.start()

    def _wait(self, action: Digest, tell: Callable[[Digest], None]) -> None:
        try:
            descriptor = os.open(self._path(action), os.O_RDWR)
        except FileNotFoundError:
            tell(action)
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)
            tell(action)

    def _path(self, action: Digest) -> str:
        return os.path.join(self._folder, hex_of(action))


def _is_at(descriptor: int, path: str) -> bool:
    """Whether an open file is the one at `path`."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

"""Leases: which build runs an action now. Others wait for it, and then find its trace.

    leases/table                  empty; the byte whose number is the first 60 bits of an action's digest is locked by
                                  the build that runs it, with a lock of an open file description (Linux)
    leases/<hex of the action>    elsewhere, and on a network file system: a lock file with a heartbeat (see lockfiles)

Constraints: builds started apart, also in other worktrees, share a step; a killed build blocks nobody; a holder never
waits for another lease, so there is no deadlock; a lease is taken for every step. Decision: locks of the kernel, which
end with their process: a byte of one file costs 4 µs, where a file of its own costs 30 µs and, while steps write beside
it, a wait for the file system's journal of 0.3 ms. Rejected: a lock file with a process number alone, which a kill
leaves behind and which cannot be told from a number used again; POSIX locks, which end when any descriptor of the file
is closed.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from labmake.model import Digest
from labmake.store import lockfiles
from labmake.store.digest import hex_of
from labmake.store.filesystem import uses_lock_files
from labmake.store.lockfiles import LockFile

TABLE = "table"


class Locks(Protocol):
    """Locks by the hex digits of an action, each held by one build at a time."""

    def take(self, name: str) -> bool:
        """Take a lock; False while another build has it."""
        ...

    def give_back(self, name: str) -> None:
        """End a lock that was taken."""
        ...

    def wait(self, name: str) -> None:
        """Return when nobody has the lock. Called by a thread of its own."""
        ...


class Leases:
    """The leases of one build in `folder`."""

    def __init__(self, folder: Path) -> None:
        os.makedirs(folder, exist_ok=True)
        files = uses_lock_files(folder) or not hasattr(fcntl, "F_OFD_SETLK")
        self._locks: Locks = _Files(str(folder)) if files else _Bytes(str(folder))
        self._held: set[Digest] = set()

    def take(self, action: Digest) -> bool:
        """Take the lease of an action; False while another build has it. Look its trace up again after taking it."""
        if not self._locks.take(hex_of(action)):
            return False
        self._held.add(action)
        return True

    def give_back(self, action: Digest) -> None:
        """End a lease; those who wait for it look for the trace."""
        if action in self._held:
            self._held.remove(action)
            self._locks.give_back(hex_of(action))

    def when_free(self, action: Digest, tell: Callable[[Digest], None]) -> None:
        """Call `tell(action)` from another thread once nobody has its lease."""

        def wait() -> None:
            try:
                self._locks.wait(hex_of(action))
            finally:  # also if the disk does not answer: then it is asked for again, and that error is told
                tell(action)

        threading.Thread(target=wait, daemon=True).start()


class _Bytes:
    """Locks on single bytes of one file, of an open file description (fcntl(2), "Open file description locks")."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, TABLE)
        self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o666)

    def take(self, name: str) -> bool:
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _range(fcntl.F_WRLCK, name))
        except BlockingIOError:
            return False
        return True

    def give_back(self, name: str) -> None:
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _range(fcntl.F_UNLCK, name))

    def wait(self, name: str) -> None:
        descriptor = os.open(self._path, os.O_RDWR)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, _range(fcntl.F_RDLCK, name))
        finally:
            os.close(descriptor)


def _range(kind: int, name: str) -> bytes:
    """The `struct flock` for the byte of a lock."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, int(name[:15], 16), 1, 0)


class _Files:
    """Locks on files of their own."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._held: dict[str, LockFile] = {}

    def take(self, name: str) -> bool:
        held = lockfiles.take(os.path.join(self._folder, name))
        if held is not None:
            self._held[name] = held
        return held is not None

    def give_back(self, name: str) -> None:
        self._held.pop(name).release()

    def wait(self, name: str) -> None:
        lockfiles.wait(os.path.join(self._folder, name))

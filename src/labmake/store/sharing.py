"""Who uses a store: builds and other commands at the same time, or one collection alone.

    store/gc.lock    empty; locked by flock: shared by every command that uses the store, alone by a collection
    store/users/     on a network file system instead: a lock file for each command that uses the store,
    store/gc.alone   and the lock file of the collection

A command makes its file and then looks for a collection; a collection makes its own and then looks for commands: so at
least one of two sees the other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from labmake.errors import StoreError
from labmake.store import lockfiles
from labmake.store.filesystem import UNLOCKABLE, uses_lock_files
from labmake.store.lockfiles import POLL, LockFile

_ANOTHERS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
"""Errors of a store that cannot be written: whoever writes there next tells them, in better words."""


@contextmanager
def using(store: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """While it is entered, nothing is collected. Calls `waiting` before it waits for a collection to end."""
    try:
        os.makedirs(store, exist_ok=True)
        if uses_lock_files(store):
            held: int | LockFile = _use(store, waiting)
        else:
            held = _open_lock(store)
    except OSError as error:
        if error.errno not in _ANOTHERS:
            raise
        yield  # who cannot write here cannot collect here either
        return
    if isinstance(held, LockFile):
        try:
            yield
        finally:
            held.release()
        return
    try:
        _lock(held, fcntl.LOCK_SH, waiting)
        yield
    finally:
        os.close(held)


@contextmanager
def alone(store: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """While it is entered, no other command uses the store. Calls `waiting` before it waits for those that do.

    Raises StoreError where files cannot be locked.
    """
    os.makedirs(store, exist_ok=True)
    if uses_lock_files(store):
        lock = _collect(store, waiting)
        try:
            yield
        finally:
            lock.release()
        return
    descriptor = _open_lock(store)
    try:
        if not _lock(descriptor, fcntl.LOCK_EX, waiting):
            raise StoreError(
                "nothing can be collected where files cannot be locked",
                [("store", store)],
                ["collect on the machine that has the disk, or set LABMAKE_LOCKS=files for all who use it"],
            )
        yield
    finally:
        os.close(descriptor)


# Locks of the kernel


def _open_lock(store: Path) -> int:
    return os.open(store / "gc.lock", os.O_RDONLY | os.O_CREAT, 0o666)


def _lock(descriptor: int, how: int, waiting: Callable[[], object]) -> bool:
    """Lock, waiting if need be; False on a file system without locks."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        fcntl.flock(descriptor, how)
    except OSError as error:
        if error.errno not in UNLOCKABLE:
            raise
        return False
    return True


# Lock files


def _use(store: Path, waiting: Callable[[], object]) -> LockFile:
    users, collection = store / "users", str(store / "gc.alone")
    users.mkdir(exist_ok=True)
    told = False
    while True:
        name = f"{lockfiles.machine().replace('/', '-')}-{os.getpid()}-{time.time_ns()}"
        lock = lockfiles.take(str(users / name))
        if lock is not None and not lockfiles.is_held(collection):
            return lock
        if lock is not None:
            lock.release()
        if not told:
            waiting()
        told = True
        lockfiles.wait(collection)


def _collect(store: Path, waiting: Callable[[], object]) -> LockFile:
    told = False
    while (lock := lockfiles.take(str(store / "gc.alone"))) is None or _users(store):
        if not told:
            waiting()
        told = True
        if lock is not None:
            while _users(store):
                time.sleep(POLL)
            return lock
        time.sleep(POLL)
    return lock


def _users(store: Path) -> bool:
    """Whether a command that lives uses the store; files of dead ones are removed."""
    try:
        names = [name for name in os.listdir(store / "users") if not name.endswith((".take", ".dead", ".clock"))]
    except FileNotFoundError:
        return False
    for name in names:
        path = str(store / "users" / name)
        lock = lockfiles.take(path)
        if lock is None:
            return True
        lock.release()
    return False

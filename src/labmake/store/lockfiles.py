"""Lock files: exclusive locks where flock does not work, with a heartbeat that tells a killed holder from a slow one.

    <path>    one line: machine, process number, start of the process, a number of this lock; mtime: the last heartbeat

`machine` is host name, boot and process namespace, so numbers of processes are compared only where they mean the same.

Constraints: exclusive creation and renaming are all that network file systems do atomically; machines' clocks differ; a
process may be killed, and its machine may vanish. Decision: whoever creates the file has the lock; a thread of the
holder stamps all its files every BEAT seconds with the file system's own clock. A lock is dead if its holder's process
on this machine has ended, or if no machine has stamped it for DEAD seconds, measured against a file that is written now
beside it. A dead lock is renamed away by one process at a time (which holds `<path>.take`), and looked at again after
the rename: a living lock that came between is put back. Rejected: POSIX locks, which one close of any descriptor ends;
comparing heartbeats with the machine's clock; removing by age alone, which takes the new lock of a faster taker.
"""

from __future__ import annotations

import atexit
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count

BEAT = 10.0
"""Seconds between two heartbeats."""

DEAD = 180.0
"""Seconds without a heartbeat after which a holder counts as dead: 18 beats, so that a pause of swapping or of the
network kills nobody. If it does, a step runs twice."""

POLL = 0.3
"""Seconds between two looks at a lock that is waited for."""

_numbers = count()


@dataclass(eq=False)
class LockFile:
    """A lock that this process holds."""

    path: str
    text: str
    _released: bool = field(default=False)

    def release(self) -> None:
        """Give it back, unless somebody took it for dead."""
        _beating.drop(self)
        forked = self.text.split(" ")[1] != str(os.getpid())  # then it is the parent's
        if not (self._released or forked):
            self._released = True
            try:
                if _read(self.path) == self.text:
                    _unlink(self.path)
            except OSError:  # it is dead when this process has ended
                pass


def take(path: str) -> LockFile | None:
    """The lock at `path`, or None while somebody has it. Raises OSError if the file cannot be made."""
    lock = _create(path)
    if lock is None and _remove_dead(path):
        lock = _create(path)
    return lock


def wait(path: str) -> None:
    """Return when nobody has the lock at `path`, or its holder is dead."""
    while is_held(path):
        time.sleep(POLL)


def is_held(path: str) -> bool:
    """Whether somebody who lives has the lock at `path`."""
    text = _read(path)
    return text is not None and not _is_dead(path, text)


@lru_cache(maxsize=1)
def machine() -> str:
    """The name of this machine since it was started, and of the process numbers that are seen here."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read(8)
        space = str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:  # macOS has neither, and no containers
        boot = space = ""
    return "/".join((socket.gethostname().replace(" ", "_"), boot, space))


# Creating and removing


def _create(path: str) -> LockFile | None:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    pid = os.getpid()
    lock = LockFile(path, f"{machine()} {pid} {_start_of(pid)} {next(_numbers)}-{time.time_ns()}")
    try:
        os.write(descriptor, lock.text.encode())
    except BaseException:
        _unlink(path)
        raise
    finally:
        os.close(descriptor)
    _beating.add(lock)
    return lock


def _remove_dead(path: str) -> bool:
    """Remove a lock whose holder is dead; whether it is gone. One process at a time looks and removes."""
    text = _read(path)
    if text is None:
        return True
    if not _is_dead(path, text):
        return False
    taking = _create(f"{path}.take")
    if taking is None:
        beside = _read(f"{path}.take")
        if beside is not None and _is_dead(f"{path}.take", beside):  # who was taking was killed
            _rename_away(f"{path}.take", beside)
        return False
    try:
        return _rename_away(path, text)
    finally:
        taking.release()


def _rename_away(path: str, text: str) -> bool:
    """Remove the lock at `path` if it is still the one with this text; whether it was."""
    away = f"{path}.{os.getpid()}-{next(_numbers)}.dead"
    try:
        os.rename(path, away)
    except FileNotFoundError:
        return True
    same = _read(away) == text
    if not same:  # its holder woke up, and another one has the lock by now
        _put_back(away, path)
    _unlink(away)
    return same


def _put_back(away: str, path: str) -> None:
    """As a link, which replaces nothing; where there are no links, by a rename."""
    try:
        os.link(away, path)
    except FileExistsError:
        pass
    except OSError:
        if not os.path.lexists(path):
            os.rename(away, path)


def _is_dead(path: str, text: str) -> bool:
    """Whether the holder of a lock is dead: known of a process of this machine, else by its heartbeat."""
    words = text.split(" ")
    if len(words) == 4 and words[0] == machine() and words[1].isdigit():
        return words[2] != _start_of(int(words[1]))
    try:
        beat = os.stat(path).st_mtime
    except FileNotFoundError:
        return False  # released just now: it is looked for again
    return _now_beside(path) - beat > DEAD


def _now_beside(path: str) -> float:
    """The file system's clock, by a file that is written now."""
    probe = f"{path}.{os.getpid()}-{next(_numbers)}.clock"
    descriptor = os.open(probe, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(descriptor, b"0")
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        _unlink(probe)


@lru_cache(maxsize=256)
def _own_start(pid: int) -> str:
    return _start_of_any(pid)


def _start_of(pid: int) -> str:
    """When a process of this machine began, in its own units; "" if there is none."""
    return _own_start(pid) if pid == os.getpid() else _start_of_any(pid)


def _start_of_any(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        if os.path.exists("/proc/self/stat"):
            return ""
    import psutil

    try:
        return str(psutil.Process(pid).create_time())
    except psutil.Error:
        return ""


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


# The heartbeat


class _Beating:
    """The locks of this process, stamped by one thread that runs while there are any."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: set[LockFile] = set()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, lock: LockFile) -> None:
        with self._guard:
            self._locks.add(lock)
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, daemon=True)
                self._thread.start()

    def drop(self, lock: LockFile) -> None:
        with self._guard:
            self._locks.discard(lock)

    def held(self) -> tuple[LockFile, ...]:
        with self._guard:
            return tuple(self._locks)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            with self._guard:
                if not self._locks:
                    self._thread = None
                    return
            for lock in self.held():
                try:
                    os.utime(lock.path)
                except OSError:  # taken for dead, or the disk does not answer: then somebody else takes it
                    pass


_beating = _Beating()


def _forget() -> None:
    """A forked child has none of its parent's locks, nor the thread."""
    global _beating
    _beating = _Beating()


def _release_all() -> None:
    for lock in _beating.held():
        lock.release()


os.register_at_fork(after_in_child=_forget)
atexit.register(_release_all)

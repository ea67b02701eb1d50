"""Bytes from file to file: shared by the file system where it can, else copied; and time stamps that can be trusted."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import sys

from labmake.model import Digest
from labmake.seams import GRANULARITY
from labmake.store.digest import BUFFER

_FICLONE = 0x40049409
"""Linux's ioctl that lets two files share their blocks until one is written (btrfs, XFS, bcachefs)."""


def create(path: str, mode: int) -> int:
    """A descriptor of a new file at `path`, whose folder is made if need be; `mode` less the process's umask."""
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
    try:
        return os.open(path, flags, mode)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except FileExistsError:  # a killed process with our number left it
        os.unlink(path)
    return os.open(path, flags, mode)


def set_mode(path: str, mode: int) -> None:
    """Set a file's mode, where the file system has modes: they only protect, and are no part of what is believed."""
    try:
        os.chmod(path, mode)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Writes all of `data`. Raises OSError, for a full disk for instance."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def reflink(source: str, descriptor: int) -> bool:
    """Lets the empty file `descriptor` share the blocks of `source`; False where the file system cannot."""
    if sys.platform != "linux":
        return False
    origin = os.open(source, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _FICLONE, origin)
        return True
    except OSError:
        return False
    finally:
        os.close(origin)


def copy(source: str, descriptor: int) -> Digest:
    """Copies the bytes of `source` to the empty file `descriptor` and returns the digest of what was copied."""
    origin = os.open(source, os.O_RDONLY)
    sha, size = hashlib.sha256(), 0
    try:
        buffer = memoryview(bytearray(min(BUFFER, os.fstat(origin).st_size + 1)))
        while count := os.readv(origin, [buffer]):
            sha.update(buffer[:count])
            write_all(descriptor, buffer[:count])
            size += count
    finally:
        os.close(origin)
    return f"{sha.hexdigest()}-{size}"


def settle(file: str | int, *, touch: bool = True) -> os.stat_result:
    """Sets a file's mtime to just older than the file system's clock, so that no later edit can share its stat.

    The clock is read from the file itself: `touch` lets the file system stamp it, a file that was written a moment ago
    bears such a stamp already. So it is right also where the file system is another machine's, and costs no probe.
    """
    if touch:
        os.utime(file)
    stamp = os.stat(file).st_mtime_ns - GRANULARITY
    os.utime(file, ns=(stamp, stamp))
    return os.stat(file)

"""Which file system holds a path, and whether files on it are locked by the kernel or by lock files.

LABMAKE_LOCKS is `flock` or `files`. Without it, lock files are used where the store lies on another machine: flock on a
network file system may be missing, may last beyond its process, or may be known to one machine alone.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from functools import lru_cache
from pathlib import Path

from labmake.errors import Misuse

LOCKS = "LABMAKE_LOCKS"
"""The variable by which a user says how files are locked."""

NETWORK = frozenset(
    """nfs nfs4 cifs smb3 smbfs smb2 afs 9p ceph lustre beegfs gpfs panfs orangefs pvfs2 glusterfs ocfs2 gfs2 virtiofs
    afpfs webdav davfs fuse.sshfs fuse.glusterfs fuse.ceph fuse.s3fs fuse.rclone fuse.juicefs fuse.gcsfuse fuse.davfs
    fuse.mfs fuse.beegfs""".split()
)
"""File systems on another machine, or shared with one, by the kernel's names."""

UNLOCKABLE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EINVAL)
"""What flock answers where it does not work."""


def file_system(path: Path) -> str:
    """The type of the file system that holds a path, as the kernel calls it; "" if that is not known."""
    whole = os.path.realpath(path)
    best, kind = "", ""
    for place, name in _mounts():
        inside = whole == place or whole.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(best):
            best, kind = place, name
    return kind


def is_network(path: Path) -> bool:
    """Whether a path lies on another machine."""
    return file_system(path) in NETWORK


@lru_cache(maxsize=16)
def uses_lock_files(folder: Path) -> bool:
    """Whether what lies in `folder` is locked by lock files. Raises Misuse for a LABMAKE_LOCKS that means nothing."""
    said = os.environ.get(LOCKS, "")
    if said not in ("", "flock", "files"):
        raise Misuse(
            f"{LOCKS} is neither flock nor files",
            [(LOCKS, said)],
            ["unset it: then labmake looks at the file system itself"],
        )
    return said == "files" if said else is_network(folder) or _cannot_lock(folder)


def _cannot_lock(folder: Path) -> bool:
    """Whether flock does not work in a folder; a folder that cannot be opened is another's error."""
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in UNLOCKABLE
    finally:
        os.close(descriptor)
    return False


def _mounts() -> list[tuple[str, str]]:
    """(folder, type) of every mounted file system, in the order in which they were mounted."""
    if sys.platform == "linux":
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
                return [_parsed(line) for line in file]
        except (OSError, ValueError, IndexError):
            pass
    import psutil

    return [(mount.mountpoint, mount.fstype) for mount in psutil.disk_partitions(all=True)]


def _parsed(line: str) -> tuple[str, str]:
    """The mount point and type in a line of /proc/self/mountinfo (see proc_pid_mountinfo(5))."""
    before, _, after = line.partition(" - ")
    place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])
    return place, after.split()[0]

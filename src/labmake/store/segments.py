"""Segments: the files to which small blobs and traces are appended as length-framed records.

    segment   HEADER, then records
    record    magic "\\x89LmR" | kind, 1 byte | length of key, u16 | length of payload, u32 | key | payload | crc32, u32
    kind      "B" blob: the key is its digest
              "T" trace: the key is the action's digest, the payload JSON
              "L" large blob: the key is its digest, the payload "<mtime_ns> <inode>" of its sound file
          "U" use: the key is an action's or blob's digest, the payload when it was last used (nanoseconds), in digits
    first     number below which no new segment may be named, in digits: names are never used twice

Segments are called <number>.seg; on a network file system <number>-<host>.seg, with <name>.lock in the place of flock.
Integers are little-endian; the crc covers all that precedes it in the record.

Constraints: a build of 20 000 trivial steps stores 60 000 small things and must cost little more than `make`; several
processes add at once; a process may be killed at any byte; what is lost is made again, what is wrong must be noticed.
Decision: one writer owns a segment by flock and appends each record with one write. Nothing is ever changed in place.
A torn tail ends what readers see, and the segment's next writer cuts it off; damage before a whole record is skipped.
Rejected: one file per small blob, which costs 0.7 ms each on ext4 against 1.3 µs for an appended record; SQLite for the
blobs, since its one writer at a time would make every worker wait for every other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

from labmake.errors import StoreError
from labmake.store import lockfiles
from labmake.store.filesystem import uses_lock_files
from labmake.store.index import Item, Location
from labmake.store.lockfiles import LockFile

HEADER = b"labmake segment 1\n"
MAGIC = b"\x89LmR"
LIMIT = 64 << 20
"""Bytes after which a segment takes no more records, so that one can be read, sent or swept as a whole."""

_HEAD = struct.Struct("<4scHI")
_TAIL = struct.Struct("<I")
_LOOK_BACK = 64 << 10
"""Bytes at a segment's end that are searched for its last record; more than the largest blob's record."""


def frame(kind: str, key: str, payload: bytes) -> bytes:
    """The bytes of a record."""
    name = key.encode()
    body = _HEAD.pack(MAGIC, kind.encode(), len(name), len(payload)) + name + payload
    return body + _TAIL.pack(zlib.crc32(body))


def scan(data: bytes, base: int, segment: str) -> tuple[list[Item], int]:
    """The whole records in `data`, which begins at offset `base` of a segment, and the offset after the last one."""
    items: list[Item] = []
    position, upto = 0, base
    while (position := data.find(MAGIC, position)) >= 0:
        end = _end_of_record(data, position)
        if end < 0:
            position += 1
            continue
        _, kind, key_length, length = _HEAD.unpack_from(data, position)
        start = position + _HEAD.size
        key = data[start : start + key_length].decode()
        items.append((key, kind.decode(), (segment, base + start + key_length, length)))
        position, upto = end, base + end
    return items, upto


def _end_of_record(data: bytes, position: int) -> int:
    """The offset after the record at `position`; -1 if there is no whole one."""
    if position + _HEAD.size > len(data):
        return -1
    _, _, key_length, length = _HEAD.unpack_from(data, position)
    end = position + _HEAD.size + int(key_length) + int(length) + _TAIL.size
    if end > len(data):
        return -1
    (checksum,) = _TAIL.unpack_from(data, end - _TAIL.size)
    return end if zlib.crc32(memoryview(data)[position : end - _TAIL.size]) == checksum else -1


def end_of(key: str, location: Location) -> tuple[int, int]:
    """The offsets at which the record of `key` with its payload at `location` begins and ends."""
    _, offset, length = location
    return offset - len(key.encode()) - _HEAD.size, offset + length + _TAIL.size


def read_record(descriptor: int, kind: str, key: str, location: Location) -> bytes | None:
    """The payload at `location` if a sound record of this kind and key lies there, else None."""
    start, end = end_of(key, location)
    data = os.pread(descriptor, end - start, start) if start >= 0 else b""
    payload = data[location[1] - start : location[1] - start + location[2]]
    return payload if data and data == frame(kind, key, payload) else None


class Writer:
    """Appends records to a segment in `folder` that no other process is writing. Used by one thread."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._descriptor = -1
        self._owner = 0
        self._name = ""
        self._end = 0
        self._lock: LockFile | None = None

    def append(self, records: Sequence[tuple[str, str, bytes]]) -> list[Location]:
        """Appends records (kind, key, payload) with one write and says where they lie.

        Raises StoreError if the disk does not take them all; then none is there.
        """
        # A forked child shares the lock with its parent: it has to take a segment of its own.
        if self._descriptor < 0 or self._owner != os.getpid() or self._end >= LIMIT:
            self.close()
            self._take()
        framed = [frame(*record) for record in records]
        data = b"".join(framed)
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            self.close()
            raise self._refused(error.strerror or str(error))
        if written != len(data):
            self._cut()
            raise self._refused("no space left on the disk")
        locations: list[Location] = []
        for (_, _, payload), whole in zip(records, framed, strict=True):
            self._end += len(whole)
            locations.append((self._name, self._end - len(payload) - _TAIL.size, len(payload)))
        return locations

    def close(self) -> None:
        """Gives the segment back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _cut(self) -> None:
        """Take a torn record off the end; if the disk refuses that too, the segment's next writer does it."""
        try:
            os.ftruncate(self._descriptor, self._end)
        except OSError:
            self.close()

    def _take(self) -> None:
        files = uses_lock_files(Path(self._folder))
        for name in _names(_first(self._folder), f"-{_host()}" if files else ""):
            path = os.path.join(self._folder, name)
            try:
                if os.path.exists(path) and os.stat(path).st_size >= LIMIT:
                    continue
                if files and (lock := lockfiles.take(f"{path}.lock")) is None:
                    continue
                self._lock = lock if files else None
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
                end = _own(self._descriptor, path, files)
            except OSError as error:
                self.close()
                raise self._refused(error.strerror or str(error))
            if end is not None:
                self._owner, self._name, self._end = os.getpid(), name, end
                return
            self.close()

    def _refused(self, reason: str) -> StoreError:
        return StoreError(
            "the store cannot be written",
            [("folder", self._folder), ("reason", reason)],
            ["make room or repair the permissions, then build again: what was stored before is kept"],
        )


def _names(first: int, suffix: str = "") -> Iterator[str]:
    return (f"{number:02d}{suffix}.seg" for number in count(first))


def _number(name: str) -> int:
    """The number in a segment's name; -1 for another file."""
    found = re.fullmatch(r"(\d+)(?:-.*)?\.seg", name)
    return int(found[1]) if found else -1


def _host() -> str:
    """This host in the name of a file: on a network file system each host has segments of its own."""
    return re.sub(r"[^A-Za-z0-9]", "-", socket.gethostname())


def _first(folder: str) -> int:
    """The lowest number that a segment to write may have; see compact."""
    try:
        with open(os.path.join(folder, "first"), "rb") as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return 0


def _own(descriptor: int, path: str, locked: bool) -> int | None:
    """Locks an open segment, unless it is, and cuts off a torn tail; the offset of its end, or None if it is not to be
    had."""
    if not locked:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
    size = os.fstat(descriptor).st_size
    try:
        removed = os.stat(path).st_ino != os.fstat(descriptor).st_ino
    except FileNotFoundError:
        removed = True
    if removed or size >= LIMIT:
        return None
    head = os.pread(descriptor, len(HEADER), 0)
    if head != HEADER:
        if not HEADER.startswith(head):  # another version's
            return None
        os.ftruncate(descriptor, 0)
        if os.write(descriptor, HEADER) < len(HEADER):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return len(HEADER)
    end = _sound_end(descriptor, size)
    if end < size:
        os.ftruncate(descriptor, end)
    return end


def _sound_end(descriptor: int, size: int) -> int:
    """The offset after the last whole record, looked for at the end first: reading 64 MiB takes every worker 50 ms."""
    base = max(len(HEADER), size - _LOOK_BACK)
    items, end = scan(read_range(descriptor, base, size), base, "")
    if not items and base > len(HEADER):
        base = len(HEADER)
        items, end = scan(read_range(descriptor, base, size), base, "")
    return end if items else len(HEADER)


def read_range(descriptor: int, start: int, end: int) -> bytes:
    """The bytes from offset `start` to `end`, or to the file's end."""
    parts = []
    while start < end and (part := os.pread(descriptor, end - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


# Compacting


def segment_bytes(records: Iterable[Item]) -> int:
    """The bytes of a segment that holds these records and nothing else."""
    total = len(HEADER)
    for key, _, location in records:
        start, end = end_of(key, location)
        total += end - start
    return total


def compact(folder: str, kept: Mapping[str, Sequence[Item]]) -> None:
    """Replace segments by new ones with only the records that are `kept` of each. Nobody else may use the store.

    The new ones have numbers that were never used, so that an index which knows an old one sees that it is gone, and
    they are on the disk before the old ones go. A segment that a process still has locked stays as it is.
    """
    held = {name: locked for name in kept if (locked := _locked(os.path.join(folder, name))) is not None}
    try:
        if not held:
            return
        first = max([*map(_number, os.listdir(folder)), _first(folder) - 1]) + 1
        _write_whole(folder, "first", [str(first).encode()])
        names, parts, size = _names(first), [HEADER], len(HEADER)
        for name, (source, _) in held.items():
            for key, _, location in kept[name]:
                start, end = end_of(key, location)
                parts.append(read_range(source, start, end))
                size += end - start
                if size >= LIMIT:
                    _write_whole(folder, next(names), parts)
                    parts, size = [HEADER], len(HEADER)
        if len(parts) > 1:
            _write_whole(folder, next(names), parts)
        for name in held:
            os.unlink(os.path.join(folder, name))
    finally:
        for descriptor, lock in held.values():
            os.close(descriptor)
            if lock is not None:
                lock.release()


def _locked(path: str) -> tuple[int, LockFile | None] | None:
    """A descriptor of a segment that no process is writing, locked; None if one is."""
    lock = None
    files = uses_lock_files(Path(path).parent)
    if files and (lock := lockfiles.take(f"{path}.lock")) is None:
        return None
    descriptor = os.open(path, os.O_RDWR)
    try:
        if not files:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor, lock


def _write_whole(folder: str, name: str, parts: Iterable[bytes]) -> None:
    """A file that appears whole and is on the disk."""
    beside = os.path.join(folder, f".{name}")
    try:
        with open(beside, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.rename(beside, os.path.join(folder, name))
    except BaseException:
        if os.path.exists(beside):
            os.unlink(beside)
        raise

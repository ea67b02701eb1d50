"""Placing many small files at once, by several processes: making a file takes longer than deciding that it is made."""

from __future__ import annotations

import marshal
import os
from collections.abc import Sequence

from labmake.errors import LabmakeError
from labmake.frozen import frozen
from labmake.model import Digest, Stat
from labmake.store.blobs import Blobs
from labmake.store.index import Location
from labmake.store.place import place_data

MANY = 64
"""Files from which further processes are forked: a fork costs as much as 50 files."""

MOST = 2000
"""Files that are placed before others are looked after: half a second's work."""

Item = tuple[str, Digest, Location]
"""(absolute path where nothing lies, digest, place in the store) of a small file."""


@frozen
class Place:
    """A request to the scheduler: have these files placed. The answer has a stat for each; None for one that could not
    be placed so, which is then placed in the usual way, or fails there."""

    items: Sequence[Item]


def place_all(blobs: Blobs, items: Sequence[Item], processes: int) -> list[Stat | None]:
    """Place files, in order; large numbers by several processes."""
    count = min(processes, len(items) // (MANY // 2)) or 1
    shares = [items[number::count] for number in range(count)]
    children = [_fork(blobs, share) for share in shares[1:]]
    placed: list[Stat | None] = [None] * len(items)
    placed[::count] = _place(blobs, shares[0])
    for number, (pid, pipe) in enumerate(children, 1):
        try:
            found = marshal.loads(_read_all(pipe))
        except (ValueError, EOFError, TypeError):  # it was killed: what it placed is found where it lies
            found = [None] * len(shares[number])
        os.close(pipe)
        os.waitpid(pid, 0)
        placed[number::count] = found
    return placed


def _fork(blobs: Blobs, share: Sequence[Item]) -> tuple[int, int]:
    """A process that places files, and the pipe on which it answers. It looks up nothing: the index is the parent's."""
    pipe, answer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(answer)
        return pid, pipe
    try:
        data = memoryview(marshal.dumps(_place(blobs, share)))
        blobs.tidy()
        while data:
            data = data[os.write(answer, data) :]
    finally:
        os._exit(0)


def _place(blobs: Blobs, share: Sequence[Item]) -> list[Stat | None]:
    placed: list[Stat | None] = []
    for path, digest, location in share:
        try:
            placed.append(place_data(blobs, digest, blobs.read_at(location), path))
        except (OSError, LabmakeError):
            placed.append(None)
    return placed


def _read_all(descriptor: int) -> bytes:
    """All that a pipe gives until its end."""
    parts = []
    while part := os.read(descriptor, 1 << 16):
        parts.append(part)
    return b"".join(parts)

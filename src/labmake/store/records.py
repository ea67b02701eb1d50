"""Records: small blobs and traces in segments, found through the index, whoever appended them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from labmake.seams import GRANULARITY
from labmake.store.index import Index, Item, Location
from labmake.store.segments import HEADER, LIMIT, Writer, end_of, read_range, read_record, scan

_OPEN = 64
"""Segments kept open for reading: macOS allows a process 256 files."""


class Records:
    """The records of the segments in `folder`. Used by one thread.

    With `follow`, what is not in the index is looked for in what others appended meanwhile.
    """

    def __init__(self, folder: str, index: Index, follow: bool) -> None:
        self._folder = folder
        self._index = index
        self._follow = follow
        self._writer = Writer(folder)
        self._readers: dict[str, int] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._growing: set[str] = set()
        self._listed: int | None = None
        self._held: dict[tuple[str, str], bytes] | None = None
        self._told: set[str] = set()
        self.generation = 0
        """Raised when something that others appended was read."""
        self.learned: list[Item] = []

    def find(self, kind: str, key: str, look: bool = True) -> list[Location]:
        """Where the records of `key` lie; [] if there is none. Without `look`, what others have just appended counts
        only if it was read already."""
        if self._follow and self._listed is None:
            self.refresh()
        found = self._index.get(kind, key)
        if not found and look and self._follow:
            self.refresh()
            found = self._index.get(kind, key)
        return found

    def append(self, kind: str, key: str, payload: bytes) -> None:
        """Appends a record. Raises StoreError if the disk does not take it."""
        if self._held is not None:
            self._held[kind, key] = payload
        else:
            self._write([(kind, key, payload)])

    def _write(self, records: list[tuple[str, str, bytes]]) -> None:
        locations = self._writer.append(records)
        items = [(key, kind, where) for (kind, key, _), where in zip(records, locations, strict=True)]
        self.learned += items
        self.learn(items)

    @contextmanager
    def together(self) -> Iterator[None]:
        """While it is entered, records are held back; at its end all are appended, in order, with one write.

        What is held is not found until then. If something fails meanwhile, nothing is appended.
        """
        held = self._held = {}
        try:
            yield
        finally:
            self._held = None
        if held:
            self._write([(kind, key, payload) for (kind, key), payload in held.items()])

    def learn(self, items: Iterable[Item]) -> None:
        """Adds what is known of records without reading them."""
        items = list(items)
        self._index.put_many(items)
        for key, _, location in items:
            self._follows(key, location)

    def learn_told(self, items: Iterable[Item]) -> None:
        """As `learn`, from the one who writes these segments and tells all that it appends: `refresh` need not look
        there, until `look_everywhere`. It has to look where a writer before has left what was not read yet."""
        items = list(items)
        self._index.put_many(items)
        for key, _, location in items:
            if not location[0]:
                continue
            if self._follows(key, location):
                self._told.add(location[0])
            else:
                self._told.discard(location[0])

    def _follows(self, key: str, location: Location) -> bool:
        """Whether a record is the first of its segment that is not in the index; then it is from now on."""
        start, end = end_of(key, location)
        if start != (self._index.offsets().get(location[0]) or len(HEADER)):
            return False
        self._index.put_offset(location[0], end)
        return True

    def look_everywhere(self) -> None:
        """One of those who tell has died, perhaps before it told."""
        self._told.clear()

    def read(self, kind: str, key: str, location: Location) -> bytes | None:
        """The payload of a record; None if it is not there or damaged."""
        for _ in range(2):  # the second time with a fresh descriptor: the segment may have been replaced
            try:
                payload = read_record(self._reader(location[0]), kind, key, location)
            except FileNotFoundError:
                return None
            if payload is not None:
                return payload
            self._forget_reader(location[0])
        return None

    def read_at(self, location: Location) -> bytes:
        """The bytes at a location, not verified. Raises FileNotFoundError if the segment is gone."""
        segment, offset, length = location
        return read_range(self._reader(segment), offset, offset + length)

    def refresh(self) -> None:
        """Reads what others appended: costs one stat for the folder and one for each segment that can grow and whose
        writer does not tell."""
        self._list()
        for name in self._growing - self._told if self._told else tuple(self._growing):
            try:
                status = os.stat(os.path.join(self._folder, name))
            except FileNotFoundError:
                self._listed = None
                continue
            seen = (status.st_size, status.st_mtime_ns)
            upto = self._index.offsets().get(name, 0)
            if status.st_size < upto:
                self._index.drop_segment(name)
                self._forget_reader(name)
            if status.st_size != upto and self._seen.get(name) != seen:
                self._scan(name, status.st_size)
                self._seen[name] = seen
                self.generation += 1

    def close(self) -> None:
        self._writer.close()
        for descriptor in self._readers.values():
            os.close(descriptor)
        self._readers.clear()

    def _list(self) -> None:
        stamp = os.stat(self._folder).st_mtime_ns
        if stamp == self._listed:
            return
        # A folder changed a moment ago may change again with the same time stamp: such a listing is not relied on.
        settled = stamp < time.time_ns() - GRANULARITY
        names = {name for name in os.listdir(self._folder) if name.endswith(".seg")}
        offsets = self._index.offsets()
        for name in set(offsets) - names:
            self._index.drop_segment(name)
        self.generation += 1
        self._growing = {name for name in names if offsets.get(name, 0) < LIMIT}
        self._listed = stamp if settled else -1

    def _scan(self, name: str, size: int) -> None:
        upto = self._index.offsets().get(name, 0)
        descriptor = self._reader(name)
        if not upto:
            if os.pread(descriptor, len(HEADER), 0) != HEADER:
                return
            upto = len(HEADER)
        items, upto = scan(read_range(descriptor, upto, size), upto, name)
        self._index.put_many(items)
        self._index.put_offset(name, upto)
        if upto >= LIMIT:
            self._growing.discard(name)

    def _forget_reader(self, name: str) -> None:
        if name in self._readers:
            os.close(self._readers.pop(name))

    def _reader(self, name: str) -> int:
        descriptor = self._readers.get(name)
        if descriptor is None:
            if len(self._readers) >= _OPEN:
                os.close(self._readers.pop(next(iter(self._readers))))
            descriptor = self._readers[name] = os.open(os.path.join(self._folder, name), os.O_RDONLY)
        return descriptor

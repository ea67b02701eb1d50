"""The index of a store: which record lies where. It only saves reading all segments, and can be lost at any time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeAlias

Location: TypeAlias = tuple[str, int, int]
"""(segment, offset of the payload, its length) of a record; ("", 0, size) for a large blob, a file of its own."""

Item: TypeAlias = tuple[str, str, Location]
"""(key, kind, location) of a record; see segments for the kinds."""


class Index(Protocol):
    """Where records lie, and how far each segment was read. Repeated items are one item."""

    def get(self, kind: str, key: str) -> list[Location]:
        """All locations of a key; [] if there is none."""
        ...

    def keys(self, kind: str, prefix: str = "") -> list[str]:
        """The keys of all records of a kind that begin with `prefix`, in order."""
        ...

    def put_many(self, items: Iterable[Item]) -> None: ...

    def drop(self, kind: str, key: str) -> None: ...

    def offsets(self) -> dict[str, int]:
        """Segment → offset up to which its records are in the index. The caller only reads it."""
        ...

    def put_offset(self, segment: str, upto: int) -> None: ...

    def drop_segment(self, segment: str) -> None:
        """Forgets a segment's offset and all its records."""
        ...


class MemoryIndex:
    """An index that lives as long as its process: for workers and tests."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], list[Location]] = {}
        self._offsets: dict[str, int] = {}

    def get(self, kind: str, key: str) -> list[Location]:
        return list(self._records.get((kind, key), ()))

    def keys(self, kind: str, prefix: str = "") -> list[str]:
        return sorted(key for one, key in self._records if one == kind and key.startswith(prefix))

    def put_many(self, items: Iterable[Item]) -> None:
        for key, kind, location in items:
            known = self._records.setdefault((kind, key), [])
            if location not in known:
                known.append(location)

    def drop(self, kind: str, key: str) -> None:
        self._records.pop((kind, key), None)

    def offsets(self) -> dict[str, int]:
        return self._offsets

    def put_offset(self, segment: str, upto: int) -> None:
        self._offsets[segment] = upto

    def drop_segment(self, segment: str) -> None:
        self._offsets.pop(segment, None)
        for name, locations in list(self._records.items()):
            kept = [location for location in locations if location[0] != segment]
            if kept:
                self._records[name] = kept
            else:
                del self._records[name]

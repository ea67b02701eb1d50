"""What of a store is alive: all that is reached from what the worktrees know, and what was used lately.

Roots are digests that facts name. An action leads to its traces, these to outputs and logs, its text to inputs, code
and environment; a manifest leads to the files of its folder. Texts are searched for whatever looks like a digest: too
much is kept rather than too little.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from labmake.model import Digest, Trace
from labmake.store.blobs import SMALL
from labmake.store.digest import blob_of, hex_of, is_folder, size_of
from labmake.store.index import Item, Location
from labmake.store.segments import HEADER, read_range, scan
from labmake.store.traces import parse_trace

_DIGEST = re.compile(rb"[0-9a-f]{64}-\d{1,18}[*/]?")
_LIST = re.compile(rb" items ([0-9a-f]{64}-\d{1,18})")
"""In an action's text: a long list of inputs, kept as a blob of its own."""

_LONGEST = 64 << 20
"""Bytes up to which a blob may be the list of a step's files or inputs: 500 000 lines."""

_OPEN = 64
"""Segments kept open for reading: macOS allows a process 256 files."""


def digests_in(text: bytes) -> Iterator[Digest]:
    """Whatever in a text looks like a digest."""
    return (found.decode() for found in _DIGEST.findall(text))


@dataclass
class View:
    """All records of a store as its segments have them now, whatever any index believes."""

    store: Path
    segments: dict[str, list[Item]] = field(default_factory=dict)
    places: dict[tuple[str, str], list[Location]] = field(default_factory=dict)
    _readers: dict[str, int] = field(default_factory=dict)

    def payload(self, location: Location) -> bytes:
        """The payload of a record."""
        name, offset, length = location
        reader = self._readers.get(name)
        if reader is None:
            if len(self._readers) >= _OPEN:
                os.close(self._readers.pop(next(iter(self._readers))))
            reader = self._readers[name] = os.open(self.store / "segments" / name, os.O_RDONLY)
        return read_range(reader, offset, offset + length)

    def read(self, blob: Digest) -> bytes | None:
        """The bytes of a blob, not verified; None if it is not there."""
        if size_of(blob) > SMALL:
            name = hex_of(blob)
            try:
                return (self.store / "blobs" / name[:2] / name).read_bytes()
            except OSError:
                return None
        places = self.places.get(("B", blob))
        return self.payload(places[0]) if places else None

    def traces(self, action: Digest) -> list[tuple[Trace, int]]:
        """The traces of an action, each with when this store got it, in nanoseconds."""
        kept = (parse_trace(self.payload(place)) for place in self.places.get(("T", action), ()))
        return [(one.trace, one.added) for one in kept if one is not None]

    def used(self) -> Iterator[tuple[Digest, int]]:
        """(action, nanoseconds since the epoch) for every time at which an action is known to have been used."""
        for kind, key in self.places:
            if kind == "T":
                yield from ((key, added) for _, added in self.traces(key))
            elif kind == "U":
                yield from ((key, use_time(self.payload(place))) for place in self.places[kind, key])

    def close(self) -> None:
        for reader in self._readers.values():
            os.close(reader)
        self._readers.clear()


def use_time(payload: bytes) -> int:
    """The nanoseconds in the payload of a record that says when something was last used; 0 if they are unreadable."""
    return int(payload) if payload.isdigit() else 0


def view(store: Path) -> View:
    """Read all segments of a store. Those of another version are left alone."""
    found = View(store)
    folder = store / "segments"
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".seg"))
    except FileNotFoundError:
        return found
    for name in names:
        data = (folder / name).read_bytes()
        if not data.startswith(HEADER):
            continue
        items, _ = scan(data[len(HEADER) :], len(HEADER), name)
        found.segments[name] = items
        for key, kind, location in items:
            found.places.setdefault((kind, key), []).append(location)
    return found


def living(seen: View, roots: Iterable[Digest], since: int) -> set[Digest]:
    """The digests of blobs and actions that are reached from `roots`, or from what was used since then (nanoseconds).

    A root of several texts in one (a manifest, the list of a step's code) leads on like an action's text.
    """
    live: set[Digest] = set()
    followed: set[Digest] = set()
    waiting = [(digest, True) for digest in roots]
    waiting += [(action, True) for action, used in seen.used() if used >= since]
    while waiting:
        digest, known = waiting.pop()
        blob = blob_of(digest)
        live.add(blob)
        if blob in followed:
            continue
        actions = seen.places.get(("T", blob))
        if not (actions or is_folder(digest) or known or size_of(blob) <= SMALL):
            continue
        followed.add(blob)
        for trace, _ in seen.traces(blob):
            waiting += [(output, False) for output in (*trace.outputs.values(), trace.log)]
        waiting += _named_in(seen, blob, is_folder(digest))
    return live


def _named_in(seen: View, blob: Digest, manifest: bool) -> list[tuple[Digest, bool]]:
    """What an action's text, a manifest or a list of files names; nothing for any other blob."""
    if size_of(blob) > SMALL and not manifest and not _may_lead_on(seen, blob):
        return []  # data
    text = seen.read(blob)
    if text is None or not text.startswith((b"labmake action ", b"[")):
        return []
    lists = [(found.decode(), True) for found in _LIST.findall(text)]
    return [*lists, *((found, False) for found in digests_in(text))]


def _may_lead_on(seen: View, blob: Digest) -> bool:
    """Whether a large blob begins as an action's text or a list does; others are data, and not read."""
    name = hex_of(blob)
    if size_of(blob) > _LONGEST:
        return False
    try:
        with (seen.store / "blobs" / name[:2] / name).open("rb") as file:
            return file.read(15).startswith((b"labmake action ", b'["'))
    except OSError:
        return False

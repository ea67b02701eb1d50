"""The blobs and traces of a store, found by digest.

    blobs/ab/<hex>     a blob over 16 KiB: a file, mode 0444, whose mtime lies before the file system's clock
    segments/<nn>.seg  blobs up to 16 KiB, and traces (see segments)
    tmp/               what is being written; names begin with the writer's process number
    corrupt/           large blobs whose bytes were no longer those of their digest

The files of large blobs may be hard links of results in a worktree, so their bytes can be changed by whoever overrides
the mode. Their stat is recorded in a segment; unless a blob still has it, it is hashed before it is used.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TypeAlias

from labmake.errors import StoreError
from labmake.model import Digest, Trace, digest_of
from labmake.seams import GRANULARITY
from labmake.store.copying import copy, create, reflink, set_mode, settle, write_all
from labmake.store.digest import (
    FileChanged,
    blob_of,
    digest_file,
    hash_file,
    hex_of,
    is_executable,
    is_folder,
    parse_manifest,
    size_of,
)
from labmake.store.index import Index, Item, Location, MemoryIndex
from labmake.store.records import Records
from labmake.store.traces import Accepted, Kept, in_order, parse_trace, render_trace, standing

__all__ = ["SMALL", "Blobs", "Index", "Item", "Location", "MemoryIndex"]

SMALL = 16 << 10
"""Bytes up to which a blob is a record: appending takes 1.3 µs, a file of its own 0.7 ms."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


Counts: TypeAlias = Callable[[Mapping[str, str]], bool]
"""Whether software (distribution → version) is what is installed now."""


class Blobs:
    """The blobs and traces in `root`, the folder `store` of labmake's state. Used by one thread.

    `learned` holds what this instance added, so that a worker can tell its coordinator, which calls `learn`. Without
    `follow` nothing is read that others appended: for a worker with an index of its own, whose coordinator knows.
    """

    def __init__(self, root: Path, index: Index, *, follow: bool = True) -> None:
        self.root = Path(root)
        self._index = index
        self._folder = os.path.join(root, "blobs")
        segments = os.path.join(root, "segments")
        os.makedirs(self._folder, exist_ok=True)
        os.makedirs(os.path.join(root, "tmp"), exist_ok=True)
        os.makedirs(segments, exist_ok=True)
        self._records = Records(segments, index, follow)
        self._numbers = count()
        self._own: tuple[int, str] = (0, "")
        self._located: tuple[Digest, list[Location]] = ("", [])
        """The blob that was located last: what is located is mostly read next."""

    @property
    def learned(self) -> list[Item]:
        """What was added by this instance since the last take_learned."""
        return self._records.learned

    def take_learned(self) -> list[Item]:
        """What was added since the last call."""
        items, self._records.learned = self._records.learned, []
        return items

    def learn(self, items: Iterable[Item]) -> None:
        """Enters what another process's `take_learned` returned (lists in place of tuples are taken too)."""
        self._records.learn_told([(key, kind, (where[0], where[1], where[2])) for key, kind, where in items])

    def look_everywhere(self) -> None:
        """One whose `take_learned` was told has died: what it appended last is looked for."""
        self._records.look_everywhere()

    def together(self) -> AbstractContextManager[None]:
        """While it is entered, small blobs and traces are held back, and then appended in order by one write."""
        return self._records.together()

    def refresh(self) -> None:
        """Reads what others appended; a look-up that finds nothing does so by itself."""
        self._records.refresh()

    @property
    def generation(self) -> int:
        """A number that is raised when something was found that others appended: until then what was looked up stays
        as it was."""
        return self._records.generation

    def close(self) -> None:
        self._records.close()
        self.tidy()

    def tidy(self) -> None:
        """Remove this process's folder for unfinished files."""
        if self._own[0] == os.getpid():
            try:
                os.rmdir(self._own[1])
            except OSError:  # it was swept, or something was left half-written
                pass
            self._own = (0, "")

    # Looking up

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here; of a folder, the manifest and all its files."""
        if self.locate(digest) is None:
            return False
        if not is_folder(digest):
            return True
        try:
            entries = parse_manifest(self.read(digest))
        except StoreError:
            return False
        return all(self.locate(entry.value) is not None for entry in entries if entry.kind in "fx")

    def locate(self, digest: Digest) -> Location | None:
        """Where a file's blob, or a folder's manifest, lies, None if nowhere. A large one was verified."""
        blob = blob_of(digest)
        if size_of(blob) <= SMALL:
            found = self._records.find("B", blob)
            self._located = (blob if found else "", found)
            return found[0] if found else None
        return ("", 0, size_of(blob)) if self.verify(blob) else None

    def blob_path(self, digest: Digest) -> Path:
        """The file of a large blob, whether or not it is there."""
        name = hex_of(digest)
        return Path(self._folder, name[:2], name)

    def read(self, digest: Digest) -> bytes:
        """The bytes of a blob or of a folder's manifest, verified. Raises StoreError if missing or damaged."""
        blob = blob_of(digest)
        if size_of(blob) > SMALL:
            return self._read_large(blob)
        known, self._located = self._located, ("", [])
        for number, location in enumerate(known[1] if known[0] == blob else self._records.find("B", blob)):
            payload = self._records.read("B", blob, location)
            if payload is not None and digest_of(payload) == blob:
                if number:  # workers are told the first: a damaged one must not stand before it
                    self._index.drop("B", blob)
                    self._records.append("B", blob, payload)
                return payload
        self._index.drop("B", blob)
        raise _missing(digest)

    def read_at(self, location: Location) -> bytes:
        """The bytes of the record at `location`, not verified. Raises StoreError if its segment is gone."""
        try:
            return self._records.read_at(location)
        except OSError:
            raise StoreError(
                "a segment of the store is gone",
                [("store", self.root), ("segment", location[0])],
                ["build again: what the segment held is made again"],
            )

    def verify(self, digest: Digest) -> bool:
        """Whether the bytes of a blob are those of its digest; a large one is hashed only if its stat is another.

        A damaged large blob is moved to corrupt/, a damaged record is forgotten: both count as missing from then on.
        """
        blob = blob_of(digest)
        if size_of(blob) <= SMALL:
            try:
                self.read(blob)
            except StoreError:
                return False
            return True
        path = str(self.blob_path(blob))
        try:
            status = os.stat(path)
            if self._is_as_known(blob, status):
                return True
            if status.st_mtime_ns > time.time_ns() - GRANULARITY:
                settle(path)  # else the next edit could leave the stat that is recorded now
            if status.st_size == size_of(blob):
                found, status = hash_file(path)
                if found == blob:
                    self._record_stat(blob, status)
                    return True
        except FileNotFoundError:
            return False
        except FileChanged:
            pass
        self._set_aside(blob, path)
        return False

    def actions(self) -> list[Digest]:
        """All actions of which there is a trace."""
        self.refresh()
        return self._index.keys("T")

    def named(self, name: str) -> Digest | None:
        """The digest of the blob whose SHA-256 is `name` (64 hexadecimal digits), if it is here; its size tells."""
        for kind in "BL":
            for digest in self._index.keys(kind, f"{name}-"):
                if self.locate(digest) is not None:
                    return digest
        return None

    def is_sound(self, digest: Digest) -> bool:
        """As `verify`, of a folder with all its files."""
        if not is_folder(digest):
            return self.verify(digest)
        try:
            entries = parse_manifest(self.read(digest))
        except StoreError:
            return False
        sound = [self.verify(entry.digest) for entry in entries if entry.kind in "fx"]  # each is looked at
        return all(sound)

    # Adding

    def put_bytes(self, data: bytes) -> Digest:
        """Stores `data` and returns its digest. Raises StoreError if the disk does not take it."""
        blob = digest_of(data)
        if len(data) <= SMALL:
            known = self._records.find("B", blob, look=False)
            if not any(self._records.read("B", blob, location) is not None for location in known):
                if known:  # all of them are damaged, and must not be found before the sound one
                    self._index.drop("B", blob)
                self._records.append("B", blob, data)
        elif not self.verify(blob):
            temporary = self.temporary()
            descriptor = create(temporary, 0o600)
            try:
                write_all(descriptor, data)
            except OSError as error:
                os.unlink(temporary)
                raise _full(self.root, error)
            finally:
                os.close(descriptor)
            self._adopt(temporary, blob)
        return blob

    def put_small(self, path: str) -> Digest | None:
        """Stores a copy of the regular file at `path` if it is small, and returns its digest as an output (with `*` if
        its owner may execute it); None for anything else. Raises FileChanged, StoreError."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > SMALL:
                return None
            data = os.read(descriptor, SMALL + 1)
        finally:
            os.close(descriptor)
        if len(data) != status.st_size:
            raise FileChanged(f"changed while it was read: {path}")
        blob = self.put_bytes(data)
        return blob + "*" if status.st_mode & stat.S_IXUSR else blob

    def put_file(self, path: str, digest: Digest) -> None:
        """Stores the file at `path`, which the caller has hashed and gives away.

        A large file is gone afterwards: it has become the blob, or was one already. A small one stays where it is, so
        that it can still be moved to its target. Raises FileChanged if the file is not as long as its digest says, or
        a small one holds other bytes; StoreError.
        """
        blob = blob_of(digest)
        status = os.lstat(path)
        # A link, or one name of several, shares its bytes with a file that others may write: it is copied.
        alone = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        if size_of(blob) <= SMALL or not alone:
            self.put_copy(path, digest)
        elif status.st_size != size_of(blob):
            raise FileChanged(f"changed after it was hashed: {path}")
        elif not self.verify(blob):
            try:
                self._adopt(path, blob)
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            self.put_copy(path, digest)
        if size_of(blob) > SMALL:
            os.unlink(path)

    def put_copy(self, path: str, digest: Digest) -> None:
        """Stores a copy of the file at `path`. Raises FileChanged if it holds other bytes; StoreError."""
        blob = blob_of(digest)
        if size_of(blob) <= SMALL:
            with Path(path).open("rb") as file:
                data = file.read(SMALL + 1)
            if digest_of(data) != blob:
                raise FileChanged(f"changed after it was hashed: {path}")
            self.put_bytes(data)
            return
        if self.verify(blob):
            return
        temporary = self.temporary()
        descriptor = create(temporary, 0o600)
        try:
            copied = digest_file(temporary) if reflink(path, descriptor) else copy(path, descriptor)
            if copied != blob:
                raise FileChanged(f"changed after it was hashed: {path}")
            self._adopt(temporary, blob)
        except BaseException as error:
            os.unlink(temporary)
            if isinstance(error, OSError) and error.errno in _FULL:
                raise _full(self.root, error)
            raise
        finally:
            os.close(descriptor)

    def drop(self, digest: Digest, living: Container[Digest] = ()) -> None:
        """Removes the file of a large blob, of a folder those of its files, unless their digests are `living`."""
        digests = [digest]
        if is_folder(digest):
            digests = [entry.digest for entry in parse_manifest(self.read(digest)) if entry.kind in "fx"]
        for one in digests:
            if size_of(one) > SMALL and one not in living:
                self.blob_path(one).unlink(missing_ok=True)

    # Traces

    def add_trace(self, trace: Trace, supersede: bool = False, accepted: Accepted | None = None) -> None:
        """Stores a trace; with `supersede` it is the one that stands from now on. `accepted`: no step of it ran.

        Nothing is written if an equal result is there already: of any trace, or with `supersede` of the standing one.
        """
        kept = self._kept(trace.action)
        now = standing(kept)
        equal = [now] if supersede and now else kept
        if any(_is_equal(other.trace, trace) and not other.accepted for other in equal):
            return
        latest = kept[-1].added + 1 if kept else 0  # a clock that was set back must not reorder them
        added = max(time.time_ns(), latest)
        self._records.append("T", trace.action, render_trace(Kept(trace, added, supersede, accepted)))

    def trace(self, action: Digest, look: bool = True, counts: Counts | None = None) -> Trace | None:
        """The trace that stands for an action: the first that this store got, unless a later one superseded it.

        Without `look` it may miss one that another build has just appended: enough where a lease is taken next. With
        `counts` only among those whose `loaded` it accepts: an equal action under other software is another result.
        """
        found = standing(_counting(self._kept(action, look), counts))
        return found.trace if found else None

    def accepted(self, action: Digest, counts: Counts | None = None) -> Accepted | None:
        """Who accepted the trace that stands for an action, if that is why it stands; `counts` as in `trace`."""
        found = standing(_counting(self._kept(action), counts))
        return found.accepted if found else None

    def note_use(self, digests: Iterable[Digest]) -> None:
        """Records that these actions or blobs were in use until now, so that they are not collected soon."""
        now = str(time.time_ns()).encode()
        for digest in digests:
            self._records.append("U", digest, now)

    def traces(self, action: Digest) -> list[Trace]:
        """All traces of an action, the oldest first: evidence of steps that are not repeatable."""
        return [one.trace for one in self._kept(action)]

    def _kept(self, action: Digest, look: bool = True) -> list[Kept]:
        payloads = [self._records.read("T", action, where) for where in self._records.find("T", action, look)]
        return in_order(kept for data in payloads if data is not None and (kept := parse_trace(data)))

    # Large blobs

    def _read_large(self, blob: Digest) -> bytes:
        if not self.verify(blob):
            raise _missing(blob)
        try:
            return self.blob_path(blob).read_bytes()
        except FileNotFoundError:
            raise _missing(blob)

    @cached_property
    def device(self) -> int:
        """The file system on which temporary files lie."""
        return os.stat(os.path.join(self.root, "tmp")).st_dev

    def temporary(self) -> str:
        """A path for a file that is being written; what a killed process leaves there is swept.

        It lies in a folder of this process's own. ext4 shuns inodes that were freed in the last minutes, and passes
        over all of them each time it makes a file in the same group of blocks, where those of a folder lie; a fresh
        folder begins elsewhere. To restore 8 000 files that have just been deleted takes half the time.
        """
        if self._own[0] != os.getpid():
            folder = os.path.join(self.root, "tmp", f"{os.getpid()}-{time.time_ns():x}")
            os.mkdir(folder)
            self._own = (os.getpid(), folder)
        return os.path.join(self._own[1], str(next(self._numbers)))

    def _adopt(self, path: str, blob: Digest) -> None:
        """Makes the file at `path` the blob."""
        destination = self.blob_path(blob)
        set_mode(path, 0o444)
        status = settle(path)
        try:
            os.rename(path, destination)
        except FileNotFoundError:
            os.makedirs(destination.parent, exist_ok=True)
            os.rename(path, destination)
        self._record_stat(blob, status)

    def _record_stat(self, blob: Digest, status: os.stat_result) -> None:
        self._records.append("L", blob, _stat_text(status))

    def _is_as_known(self, blob: Digest, status: os.stat_result) -> bool:
        text = _stat_text(status)
        known = self._records.find("L", blob)
        return status.st_size == size_of(blob) and any(self._records.read("L", blob, at) == text for at in known)

    def _set_aside(self, blob: Digest, path: str) -> None:
        aside = os.path.join(self.root, "corrupt")
        os.makedirs(aside, exist_ok=True)
        try:
            os.rename(path, os.path.join(aside, f"{hex_of(blob)}-{time.time_ns()}"))
        except FileNotFoundError:  # another process did
            pass


def _is_equal(one: Trace, other: Trace) -> bool:
    """Whether two traces of one action say the same of its results, under the same software."""
    return dict(one.outputs) == dict(other.outputs) and dict(one.loaded) == dict(other.loaded)


def _counting(kept: list[Kept], counts: Counts | None) -> list[Kept]:
    return kept if counts is None else [one for one in kept if counts(one.trace.loaded)]


def _stat_text(status: os.stat_result) -> bytes:
    return f"{status.st_mtime_ns} {status.st_ino}".encode()


def _missing(digest: Digest) -> StoreError:
    kind = "folder manifest" if is_folder(digest) else "executable file" if is_executable(digest) else "file"
    return StoreError(
        "the store does not hold what was stored in it, or no longer in one piece",
        [("digest", digest), ("is a", kind)],
        ["build the target again: what is missing is made again"],
    )


def _full(root: Path, error: OSError) -> StoreError:
    return StoreError(
        "the store cannot be written",
        [("store", root), ("reason", error.strerror or error)],
        ["make room or repair the permissions, then build again: what was stored before is kept"],
    )

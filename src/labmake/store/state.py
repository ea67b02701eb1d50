"""The state file: SQLite tables of what this worktree knows on this host. Disposable; the store is the truth.

    facts, failures, memo   (key, data)                         text by node, or by any key
    stats                   (path, size, mtime, ino, ctime, digest)  files as they were hashed
    records                 (kind, key, segment, place, length) the store's index
    segments                (name, upto)                        how far each segment is in it

Constraints: opened by every command, so it must cost a few ms; two builds may use it at once; a killed process may lose
its last batch but must not leave half of one; never shared over a network. Decision: SQLite in WAL mode without fsync,
writes collected in memory and committed in one transaction; opened under a lock, since a damaged file is renamed away
and begun anew. Where the store lies on a network file system the file lies on a local disk (see localstate).
Rejected: a file per fact (0.7 ms each), one JSON file (rewritten as a whole for each change).
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from labmake.errors import StoreError
from labmake.model import Digest, Json, canonical
from labmake.store import lockfiles
from labmake.store.filesystem import uses_lock_files
from labmake.store.index import Item, Location
from labmake.store.localstate import fetch, place_of, publish

T = TypeVar("T")

VERSION = 2
"""Of the tables below; a file of another version is begun anew."""

_SCHEMA = """
create table facts (key text primary key, data text not null) without rowid;
create table failures (key text primary key, data text not null) without rowid;
create table memo (key text primary key, data text not null) without rowid;
create table stats (path text primary key, size integer, mtime integer, ino integer, ctime integer, digest text)
    without rowid;
create table records (kind text, key text, segment text, place integer, length integer,
    primary key (kind, key, segment, place)) without rowid;
create table segments (name text primary key, upto integer not null) without rowid;
"""

FileStat: TypeAlias = tuple[int, int, int, int, Digest]
"""(size, mtime_ns, inode, ctime_ns, digest) of a file when it was hashed."""


class State:
    """The state file at `path`. Also the store's Index. Used by one thread; a forked child opens its own.

    All `put_…` and `drop_…` are seen at once by this instance, by others and after a crash once `commit` has returned.
    """

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        """The folder on the project's disk, whichever the file lies on."""
        self._copy = path
        self.path = path = place_of(path)
        self._changed = False
        self._database = _open(path, self._copy)
        self._forget_pending()
        self._offsets: dict[str, int] | None = None

    @classmethod
    def open(cls, path: Path) -> State:
        """Opens or begins the state file; one that is damaged or of another version is renamed to `….broken`.

        Raises StoreError if the folder cannot be written.
        """
        return cls(path)

    def close(self) -> None:
        """Commits and closes."""
        self.commit()
        self._database.close()
        if self._changed and self._copy != self.path:
            try:
                publish(self.path, self._copy)
            except (OSError, sqlite3.Error) as error:
                raise _refused(self._copy, error)

    def commit(self) -> None:
        """Writes what was collected, all or nothing. Raises StoreError if the disk does not take it."""
        if self._pending:
            self._guarded(self._write)
            self._forget_pending()
            self._changed = True

    # Facts, failures, memo

    def facts(self) -> dict[str, str]:
        """The text of every fact, by node."""
        return self._all("facts")

    def fact(self, node: str) -> str | None:
        """The text of one fact."""
        waiting = self._texts["facts"]
        if node in waiting:
            return waiting[node]
        return next((data for (data,) in self._rows("select data from facts where key = ?", (node,))), None)

    def nodes(self, prefix: str, most: int) -> list[str]:
        """The first nodes, in order, with a committed fact whose names begin with `prefix`; texts are not read."""
        query = "select key from facts where key >= ? and key < ? order by key limit ?"
        return [key for (key,) in self._rows(query, (prefix, f"{prefix}\U0010ffff", most))]

    def put_facts(self, facts: Mapping[str, str]) -> None:
        self._put("facts", facts)

    def drop_facts(self, nodes: Iterable[str]) -> None:
        self._put("facts", dict.fromkeys(nodes))

    def failures(self) -> dict[str, str]:
        """The text of every failure, by node."""
        return self._all("failures")

    def put_failures(self, failures: Mapping[str, str]) -> None:
        self._put("failures", failures)

    def drop_failures(self, nodes: Iterable[str]) -> None:
        self._put("failures", dict.fromkeys(nodes))

    def memo_get(self, key: str) -> Json:
        """What memo_put was given; None if there is nothing."""
        waiting = self._texts["memo"]
        if key in waiting:
            text = waiting[key]
        else:
            text = next((data for (data,) in self._rows("select data from memo where key = ?", (key,))), None)
        try:
            return None if text is None else json.loads(text)
        except ValueError:  # damaged: it is computed again
            return None

    def memo_put(self, key: str, value: Json) -> None:
        """Keeps a JSON value that can be computed again. None means: nothing."""
        self._put("memo", {key: None if value is None else canonical(value)})

    # Stats of files

    def stats(self) -> dict[str, FileStat]:
        """Every file that was hashed, by path."""
        rows = self._rows("select path, size, mtime, ino, ctime, digest from stats")
        found: dict[str, FileStat | None] = {
            path: (size, mtime, ino % 2**64, ctime, digest) for path, size, mtime, ino, ctime, digest in rows
        }
        return {path: status for path, status in (found | self._stats).items() if status is not None}

    def stat(self, path: str) -> FileStat | None:
        """One file that was hashed."""
        if path in self._stats:
            return self._stats[path]
        rows = self._rows("select size, mtime, ino, ctime, digest from stats where path = ?", (path,))
        return next(((size, mtime, ino % 2**64, ctime, digest) for size, mtime, ino, ctime, digest in rows), None)

    def put_stats(self, stats: Mapping[str, FileStat]) -> None:
        self._stats.update(stats)
        self._pending = True

    def drop_stats(self, paths: Iterable[str]) -> None:
        self._stats.update(dict.fromkeys(paths))
        self._pending = True

    # The store's index

    def get(self, kind: str, key: str) -> list[Location]:
        waiting = self._records.get((kind, key), [])
        if (kind, key) in self._dropped or (waiting and kind == "B"):
            return list(waiting)  # of a blob one place is as good as another
        rows = self._rows("select segment, place, length from records where kind = ? and key = ?", (kind, key))
        found = [(segment, place, length) for segment, place, length in rows if segment not in self._gone]
        return found + [location for location in waiting if location not in found]

    def keys(self, kind: str, prefix: str = "") -> list[str]:
        query = "select distinct key from records where kind = ? and key >= ? and key < ?"
        found = {key for (key,) in self._rows(query, (kind, prefix, f"{prefix}\U0010ffff"))}
        found -= {key for dropped, key in self._dropped if dropped == kind}
        waiting = {key for (one, key), places in self._records.items() if one == kind and places}
        return sorted(found | {key for key in waiting if key.startswith(prefix)})

    def put_many(self, items: Iterable[Item]) -> None:
        for key, kind, location in items:
            known = self._records.setdefault((kind, key), [])
            if location not in known:
                known.append(location)
        self._pending = True

    def drop(self, kind: str, key: str) -> None:
        self._records.pop((kind, key), None)
        self._dropped.add((kind, key))
        self._pending = True

    def offsets(self) -> dict[str, int]:
        if self._offsets is None:
            self._offsets = dict(self._rows("select name, upto from segments"))
        return self._offsets

    def put_offset(self, segment: str, upto: int) -> None:
        self.offsets()[segment] = upto
        self._moved.add(segment)
        self._pending = True

    def drop_segment(self, segment: str) -> None:
        self.offsets().pop(segment, None)
        for name, locations in self._records.items():
            self._records[name] = [place for place in locations if place[0] != segment]
        self._gone.add(segment)
        self._moved.discard(segment)
        self._pending = True

    # Reading and writing

    def _forget_pending(self) -> None:
        self._pending = False
        self._texts: dict[str, dict[str, str | None]] = {"facts": {}, "failures": {}, "memo": {}}
        self._stats: dict[str, FileStat | None] = {}
        self._records: dict[tuple[str, str], list[Location]] = {}
        self._dropped: set[tuple[str, str]] = set()
        self._gone: set[str] = set()
        self._moved: set[str] = set()

    def _all(self, table: str) -> dict[str, str]:
        found: dict[str, str | None] = dict(self._rows(f"select key, data from {table}"))
        return {key: data for key, data in (found | self._texts[table]).items() if data is not None}

    def _put(self, table: str, texts: Mapping[str, str | None]) -> None:
        if texts:
            self._texts[table].update(texts)
            self._pending = True

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        def read() -> list[Any]:
            return self._database.execute(query, values).fetchall()

        return self._guarded(read)

    def _guarded(self, work: Callable[[], T]) -> T:
        """Does `work`; if the file proves damaged only now, once more on a new one, with all that is pending.

        What the disk did not give counts as damage too: so the work is done twice before that is believed.
        """
        for _ in range(2):
            try:
                return work()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise _refused(self.path, error)
        self._database.close()
        try:
            with _locked(self.path):
                _check_readable(self.path)
                _rename_away(self.path)
        except OSError as refused:
            raise _refused(self.path, refused)
        self._database = _open(self.path, self.path)
        # The store's index goes as a whole: an offset without the records before it would hide them for ever.
        self._offsets = {}
        self._records, self._moved = {}, set()
        return work()

    def _write(self) -> None:
        self._database.execute("begin immediate")
        try:
            self._write_all()
            self._database.execute("commit")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("rollback")
            raise

    def _write_all(self) -> None:
        many = self._database.executemany
        for table, texts in self._texts.items():
            many(f"delete from {table} where key = ?", [(key,) for key, data in texts.items() if data is None])
            many(f"replace into {table} values (?, ?)", [pair for pair in texts.items() if pair[1] is not None])
        many("delete from stats where path = ?", [(path,) for path, status in self._stats.items() if status is None])
        stats = [(path, *_signed(status)) for path, status in self._stats.items() if status is not None]
        many("replace into stats values (?, ?, ?, ?, ?, ?)", stats)
        many("delete from records where segment = ?", [(segment,) for segment in self._gone])
        many("delete from segments where name = ?", [(segment,) for segment in self._gone])
        many("delete from records where kind = ? and key = ?", list(self._dropped))
        records = [
            (kind, key, segment, place, length)
            for (kind, key), locations in self._records.items()
            for segment, place, length in locations
        ]
        many("insert or ignore into records values (?, ?, ?, ?, ?)", records)
        many("replace into segments values (?, ?)", [(name, self.offsets()[name]) for name in self._moved])


def _signed(status: FileStat) -> FileStat:
    """SQLite's integers have a sign, inode numbers of some file systems use all 64 bits."""
    size, mtime, inode, ctime, digest = status
    return size, mtime, inode - 2**64 if inode >= 2**63 else inode, ctime, digest


def _open(path: Path, copy: Path) -> sqlite3.Connection:
    """A connection to the file; a local one that is not there begins as its copy."""
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        wal = path != copy or not uses_lock_files(path.parent.parent)
        with _locked(path):
            if path != copy:
                fetch(copy, path)
            try:
                return _connect(path, wal)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                _check_readable(path)
                try:
                    return _connect(path, wal)
                except sqlite3.DatabaseError as again:
                    if not _is_damage(again):
                        raise
                _rename_away(path)
                return _connect(path, wal)
    except (OSError, sqlite3.Error) as error:
        raise _refused(path, error)


class _AnotherVersion(sqlite3.DatabaseError):
    sqlite_errorcode = sqlite3.SQLITE_NOTADB


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is at fault, and not a lock, the disk or the caller."""
    if str(error).startswith("Could not decode to UTF-8"):  # the module's own words, without a code
        return True
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _connect(path: Path, wal: bool) -> sqlite3.Connection:
    """A connection to a sound file of this version. Raises sqlite3.DatabaseError for any other."""
    database = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        (version,) = database.execute("pragma user_version").fetchone()
        (tables,) = database.execute("select count(*) from sqlite_master").fetchone()
        database.execute("pragma synchronous = off")
        if wal and version in (0, VERSION):
            database.execute("pragma journal_mode = wal")
        if version == 0 and tables == 0:
            database.executescript(f"begin; {_SCHEMA} pragma user_version = {VERSION}; commit;")
        elif version != VERSION:
            raise _AnotherVersion(f"version {version}, not {VERSION}")
    except sqlite3.Error:
        database.close()
        raise
    return database


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """While two processes open one file, only one of them may begin it or rename it away."""
    if uses_lock_files(path.parent):
        while (lock := lockfiles.take(f"{path}.lock")) is None:
            lockfiles.wait(f"{path}.lock")
        try:
            yield
        finally:
            lock.release()
        return
    descriptor = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _check_readable(path: Path) -> None:
    """Raise OSError if a failing disk is why a file seems damaged: what SQLite cannot read it takes for no database."""
    with open(path, "rb") as file:
        while file.read(1 << 20):
            pass


def _rename_away(path: Path) -> None:
    for suffix in ("-wal", "-shm"):  # they would be applied to the new file
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    if path.exists():
        path.rename(f"{path}.broken")


def _refused(path: Path, error: Exception) -> StoreError:
    return StoreError(
        "the state file cannot be used",
        [("file", path), ("reason", error), ("at", time.strftime("%H:%M:%S"))],
        ["see whether the disk is full or the folder is not yours; the file holds only a cache and may be deleted"],
    )


def peek(path: Path) -> tuple[list[str], list[str], str]:
    """What another worktree's state file knows: the texts of its facts, the nodes that fail, the root of its project.

    Nothing is changed. Raises StoreError if it cannot be read: what it knows must not be taken for nothing.
    """
    try:
        # Nobody writes a copy in place, so SQLite needs no locks there.
        only_read = "mode=ro&immutable=1" if place_of(path) != path else "mode=ro"
        database = sqlite3.connect(f"{path.absolute().as_uri()}?{only_read}", uri=True, timeout=30)
        try:
            facts = [text for (text,) in database.execute("select data from facts")]
            failing = [node for (node,) in database.execute("select key from failures")]
            root = database.execute("select data from memo where key = 'root'").fetchone()
        finally:
            database.close()
    except sqlite3.Error as error:
        raise StoreError(
            "a worktree's state file cannot be read, so it is not known what that worktree needs",
            [("file", path), ("reason", error)],
            ["run `labmake status` in that worktree, which mends it, or delete the file if the worktree is gone"],
        )
    return facts, failing, os.fsdecode(bytes.fromhex(json.loads(root[0]))) if root else ""

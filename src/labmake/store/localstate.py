"""The state file of a project on a network file system: on a local disk, and after each change a copy where it belongs.

    <local>/labmake-<user>/<name>-<hash of the project's state folder>.db    the file that is used
    <state>/state/<name>.db                                                  a copy, replaced as a whole

SQLite in WAL mode maps a file that its processes share, and needs POSIX locks: over a network neither is sure to work.
The file holds what this host knows, so a local disk is its place; and a batch of facts costs no round trips. The copy
tells `labmake gc` on any host what this worktree needs, and brings the file back when a local disk was emptied.

Decision: the user's cache folder, else /var/tmp, else the folder for temporary files: the first that is no network file
system itself and is ours alone. If none is, SQLite works in place without WAL. Rejected: SQLite's lock files
(unix-dotfile), which a killed process leaves for ever; no copy, with which a collection would take the results of other
hosts for nobody's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import stat
from pathlib import Path

from labmake.store.filesystem import is_network, uses_lock_files


def place_of(database: Path) -> Path:
    """Where the state file that belongs at `database` is used: there, or on a local disk. Nothing is made."""
    if not uses_lock_files(database.parent.parent):
        return database
    folder = _local_folder()
    if folder is None:
        return database
    home = hashlib.sha256(os.fsencode(os.path.realpath(database.parent))).hexdigest()[:12]
    return folder / f"{database.stem}-{home}.db"


def fetch(copy: Path, place: Path) -> None:
    """Begin the local file with the copy, if there is one and no local file."""
    if place.exists() or not copy.exists():
        return
    beside = place.with_name(f".{place.name}-{os.getpid()}")
    try:
        shutil.copyfile(copy, beside)
        os.rename(beside, place)
    except OSError:  # it is only a cache
        beside.unlink(missing_ok=True)


def publish(place: Path, copy: Path) -> None:
    """Replace the copy by what the local file holds now. Raises sqlite3.Error and OSError."""
    whole = place.with_name(f".{place.name}-{os.getpid()}")
    beside = copy.with_name(f".{copy.name}-{os.getpid()}")
    try:
        database = sqlite3.connect(place, timeout=30)
        try:
            database.execute("vacuum into ?", (str(whole),))
        finally:
            database.close()
        shutil.copyfile(whole, beside)
        os.rename(beside, copy)
    finally:
        whole.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)


def _local_folder() -> Path | None:
    """A folder on a local disk that nobody else can write; None if there is none."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    import tempfile  # 5 ms, and few states are local

    for base in (cache, "/var/tmp", tempfile.gettempdir()):
        folder = Path(base, f"labmake-{os.getuid()}")
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            found = folder.lstat()
        except OSError:
            continue
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
        if ours and os.access(folder, os.W_OK) and not is_network(folder):
            return folder
    return None

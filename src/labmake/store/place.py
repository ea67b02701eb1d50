"""Placing: blobs and finished files brought to their targets, and inputs into step folders.

A placed file appears whole or not at all: it is written beside its destination, the old one is unlinked, the new one
renamed (35 µs on ext4; renaming over an existing file takes 170). Its mtime is set to just older than the file system's
clock, so that no later edit can share its stat, whatever the clock's tick. OSErrors of the disk are raised as they are.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from labmake.errors import Edited
from labmake.model import Digest, Stat, digest_of
from labmake.seams import GRANULARITY
from labmake.store.blobs import SMALL, Blobs
from labmake.store.copying import copy, create, reflink, set_mode, settle, write_all
from labmake.store.digest import (
    Entry,
    FileChanged,
    digest_file,
    is_executable,
    is_folder,
    parse_manifest,
    plain,
    size_of,
    triple,
)
from labmake.store.index import Location
from labmake.store.segments import read_range

LINKED = 1 << 20
"""Bytes from which a hard link is worth its price: the target then is read-only."""

_NAME_MAX = 255


def place_file(blobs: Blobs, digest: Digest, destination: str) -> Stat:
    """Puts the bytes of a blob at `destination`, executable if the digest says so, and returns its stat.

    A large one is reflinked; else hard-linked over 1 MiB, unless executable, as root (whom mode 0444 does not stop) or
    out of links; else copied. Raises StoreError if the blob is missing or damaged, Edited if a folder is in the way.
    """

    def write(path: str) -> Stat:
        if size_of(digest) <= SMALL:
            return _write_new(path, is_executable(digest), lambda file: write_all(file, blobs.read(digest)))
        source = _sound_blob(blobs, digest)
        if size_of(digest) > LINKED and not is_executable(digest) and os.geteuid() != 0:
            if _reflinked(source, path, 0o644):
                return triple(settle(path, touch=False))
            if _linked(source, path):
                return triple(os.stat(path))  # the blob's own mtime is an old one already
        return _write_new(path, is_executable(digest), lambda file: _share_or_copy(source, file, digest))

    # In the store, where what a killed process leaves is swept, not among the user's results.
    temporary = blobs.temporary()
    if blobs.device == _device(destination):
        try:
            return _exchange(temporary, destination, lambda: write(temporary))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
    beside = _beside(destination)
    return _exchange(beside, destination, lambda: write(beside))


def place_data(blobs: Blobs, digest: Digest, data: bytes, destination: str) -> Stat:
    """Puts a small file with these bytes at `destination`, where nothing may lie, and returns its stat.

    Raises FileChanged if they are not those of the digest, FileExistsError.
    """
    if digest_of(data) != plain(digest):
        raise FileChanged(f"does not hold {digest}: {destination}")
    try:
        os.lstat(destination)  # os.path.lexists would take a disk that fails for a place that is free
    except FileNotFoundError:
        pass
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), destination)
    temporary = blobs.temporary() if blobs.device == _device(destination) else _beside(destination)

    def write() -> Stat:
        return _write_new(temporary, is_executable(digest), lambda file: write_all(file, data))

    return _exchange(temporary, destination, write)


def place_moved(source: str, destination: str) -> Stat:
    """Puts the file at `source`, which is given up, at `destination`; keeps whether it is executable.

    Renamed on the same file system; copied from another one, and if it is a link or one name of several.
    """
    status = os.lstat(source)
    regular = stat.S_ISREG(status.st_mode)
    executable = bool((status if regular else os.stat(source)).st_mode & stat.S_IXUSR)
    if regular and status.st_nlink == 1:
        mode = (0o755 if executable else 0o644) & ~_umask()
        if stat.S_IMODE(status.st_mode) != mode:
            set_mode(source, mode)
        stamp = status.st_mtime_ns - GRANULARITY  # the file system's own clock when the step wrote it: see settle
        os.utime(source, ns=(stamp, stamp))
        placed = triple(os.stat(source))
        try:
            return _exchange(source, destination, lambda: placed, lost=False)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(destination), exist_ok=True)
            return _exchange(source, destination, lambda: placed, lost=False)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
    os.makedirs(os.path.dirname(destination) or ".", exist_ok=True)
    beside = _beside(destination)
    placed = _exchange(beside, destination, lambda: _write_new(beside, executable, lambda file: copy(source, file)))
    remove_file(source)
    return placed


def place_folder(blobs: Blobs, digest: Digest, destination: str, aside: Path) -> dict[str, Stat]:
    """Makes the folder at `destination` what the manifest says, and returns the stats of its files and links by path.

    A file that holds the right bytes already stays. What does not belong there is moved to the folder `aside`, under
    the path it had. Raises StoreError, before anything is touched, if a blob is missing or damaged.
    """
    destination = destination.rstrip("/")
    entries = parse_manifest(blobs.read(digest))
    for entry in entries:
        if entry.kind in "fx" and blobs.locate(entry.value) is None:
            blobs.read(entry.value)  # raises, in the store's words
    stats: dict[str, Stat] = {}
    with alone_in(os.path.dirname(destination)):
        if os.path.lexists(destination) and not _is_real_folder(destination):
            _move_aside(destination, aside / os.path.basename(destination))
        os.makedirs(destination, exist_ok=True)
        _clear(destination, entries, aside)
        for entry in entries:
            path = os.path.join(destination, entry.path)
            if entry.kind == "d":
                os.makedirs(path, exist_ok=True)
            elif entry.kind == "l":
                stats[entry.path] = _place_link(entry.value, path)
            else:
                stats[entry.path] = _kept(path, entry.digest) or place_file(blobs, entry.digest, path)
    return stats


@contextmanager
def alone_in(folder: str) -> Iterator[None]:
    """While it is entered, no other process places or removes a folder target in `folder`, which is made if need be.

    Two that fill one folder from different manifests would each take the other's files for foreign ones.
    """
    os.makedirs(folder, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system on which folders cannot be locked
        yield
    finally:
        os.close(descriptor)


def place_input(blobs: Blobs, location: Location | None, digest: Digest, destination: str, origin: str = "") -> None:
    """Puts an input, read-only, into a step folder: a file, or a folder by its manifest.

    Bytes come from `location` (as Blobs.locate gave it; None: it is looked up) or from the worktree's file `origin`. Up
    to 1 MiB they are copied, else reflinked, else hard-linked, else copied. Copies are verified: FileChanged if an
    origin does not hold them, StoreError if a blob does not. A link to an origin is not: the caller compares its stat
    before and after the run. A large blob with a location was verified when it was located.
    """
    if is_folder(digest):
        for entry in parse_manifest(blobs.read(digest)):
            path = os.path.join(destination, entry.path)
            if entry.kind == "d":
                os.makedirs(path, exist_ok=True)
            elif entry.kind == "l":
                _place_link(entry.value, path)
            else:
                place_input(blobs, None, entry.digest, path, os.path.join(origin, entry.path) if origin else "")
        os.makedirs(destination, exist_ok=True)
    elif size_of(digest) <= LINKED:
        write_input(destination, digest, input_data(blobs, location, digest, origin))
    elif origin:
        _large_input(origin, destination, digest)
    else:
        source = str(blobs.blob_path(digest)) if location is not None else _sound_blob(blobs, digest)
        try:
            _large_input(source, destination, digest)
        except (FileNotFoundError, FileChanged):
            _sound_blob(blobs, digest)  # raises StoreError, unless another process has just put it right
            _large_input(source, destination, digest)


def input_data(blobs: Blobs, location: Location | None, digest: Digest, origin: str = "") -> bytes:
    """The bytes of an input that is copied (up to LINKED), verified. Raises FileChanged, StoreError as place_input."""
    if origin:
        data = _read(origin, size_of(digest))
        if digest_of(data) != plain(digest):
            raise FileChanged(f"does not hold {digest}: {origin}")
        return data
    if location is not None:
        try:
            small = size_of(digest) <= SMALL
            data = blobs.read_at(location) if small else _read(str(blobs.blob_path(digest)), size_of(digest))
            if digest_of(data) == plain(digest):
                return data
        except FileNotFoundError:
            pass
    return blobs.read(digest)


def _read(path: str, size: int) -> bytes:
    """The bytes of a file of `size` bytes, and one more if it has become longer."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_range(descriptor, 0, size + 1)
    finally:
        os.close(descriptor)


def write_input(path: str, digest: Digest, data: bytes) -> None:
    """A new read-only file, as a link is read-only: so a step does with small data what it does with large."""
    os.close(create_input(path, digest, data))


def create_input(path: str, digest: Digest, data: bytes) -> int:
    """As write_input; returns the open descriptor, by which the file can be filled again."""
    descriptor = create(path, input_mode(digest))
    try:
        write_all(descriptor, data)
    except BaseException:
        os.close(descriptor)
        os.unlink(path)
        raise
    return descriptor


def remove_file(path: str) -> None:
    """Removes a file or link; none there is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def remove_empty_parents(path: str, stop: str) -> None:
    """Removes the folders above `path` that are empty, up to but not including `stop`."""
    stop = os.path.abspath(stop)
    folder = os.path.dirname(os.path.abspath(path))
    while folder.startswith(stop + os.sep):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            pass
        except OSError:
            return
        folder = os.path.dirname(folder)


# One file


def _beside(destination: str) -> str:
    """The path at which `destination` is written, hidden and in the same folder."""
    folder, name = os.path.split(destination)
    suffix = f".labmake-{os.getpid()}"
    if len(os.fsencode(name)) + len(suffix) + 1 > _NAME_MAX:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return os.path.join(folder, f".{name}{suffix}")


def _device(destination: str) -> int:
    """The file system that `destination` will lie on; its folder is made if need be."""
    folder = os.path.dirname(destination) or "."
    try:
        return os.stat(folder).st_dev
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
        return os.stat(folder).st_dev


def _exchange(beside: str, destination: str, write: Callable[[], Stat], lost: bool = True) -> Stat:
    """Writes `beside`, takes the old file away, renames; if that fails, what was written is removed if it is `lost`."""
    try:
        placed = write()
        try:
            remove_file(destination)
        except (IsADirectoryError, PermissionError):
            if not _is_real_folder(destination):
                raise
            _remove_empty_folder(destination)
        _rename(beside, destination)
    except BaseException:
        if lost:
            remove_file(beside)
        raise
    return placed


def _rename(beside: str, destination: str) -> None:
    """Renames; makes the destination's folder again if another command has just removed it, empty as it was."""
    while True:
        try:
            os.rename(beside, destination)
            return
        except FileNotFoundError:
            if not os.path.lexists(beside):
                raise
            os.makedirs(os.path.dirname(destination), exist_ok=True)


def _remove_empty_folder(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError:
        raise Edited(
            "a folder lies where a file belongs",
            [("path", path)],
            ["move the folder away, then build again"],
        )


def _write_new(beside: str, executable: bool, fill: Callable[[int], object]) -> Stat:
    """A new file filled by `fill`, with the mode of an ordinary file and a settled mtime."""
    descriptor = create(beside, 0o755 if executable else 0o644)
    try:
        fill(descriptor)
        return triple(settle(descriptor, touch=False))
    finally:
        os.close(descriptor)


def _copy_exact(source: str, descriptor: int, digest: Digest) -> None:
    if copy(source, descriptor) != plain(digest):
        raise FileChanged(f"does not hold {digest}: {source}")


def _share_or_copy(source: str, descriptor: int, digest: Digest) -> None:
    if not reflink(source, descriptor):
        _copy_exact(source, descriptor, digest)


def _sound_blob(blobs: Blobs, digest: Digest) -> str:
    """The file of a large blob. Raises StoreError if it is missing or damaged."""
    if not blobs.verify(digest):
        blobs.read(digest)  # raises, in the store's words
    return str(blobs.blob_path(digest))


def _reflinked(source: str, path: str, mode: int) -> bool:
    """Whether `path` now is a new file that shares its blocks with `source`."""
    descriptor = create(path, mode)
    shared = False
    try:
        shared = reflink(source, descriptor)
    finally:
        os.close(descriptor)
        if not shared:
            os.unlink(path)
    return shared


def _linked(source: str, path: str) -> bool:
    """Whether `path` now is a hard link: not across file systems, beyond the number of links, where none exist."""
    try:
        os.link(source, path)
        return True
    except FileExistsError:
        os.unlink(path)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except OSError:
        return False
    try:
        os.link(source, path)
        return True
    except OSError:
        return False


@functools.cache
def _umask() -> int:
    """The process's umask, which can only be read by setting it; labmake never changes it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


# Folders


def _is_real_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _clear(destination: str, entries: list[Entry], aside: Path) -> None:
    """Moves aside what the entries do not have, or have as another kind; removes empty folders they do not have."""
    kinds = {entry.path: entry.kind for entry in entries}
    folders = {"", *(entry.path for entry in entries if entry.kind == "d")}
    for entry in entries:
        parts = entry.path.split("/")[:-1]
        folders.update("/".join(parts[:count]) for count in range(1, len(parts) + 1))
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(os.path.join(destination, folder)) as listing:
            found = list(listing)
        for item in found:
            path = f"{folder}/{item.name}" if folder else item.name
            is_folder_here = item.is_dir(follow_symlinks=False)
            if is_folder_here and path in folders:
                waiting.append(path)
            elif is_folder_here:
                try:
                    os.rmdir(item.path)
                except OSError:
                    _move_aside(item.path, aside / path)
            elif kinds.get(path) not in (("l",) if item.is_symlink() else ("f", "x") if item.is_file() else ()):
                _move_aside(item.path, aside / path)


def _move_aside(source: str, wanted: Path) -> None:
    """Moves to `wanted`, with a number if that name is taken: nothing that lies aside is ever overwritten."""
    import shutil

    wanted.parent.mkdir(parents=True, exist_ok=True)
    target, number = wanted, 1
    while os.path.lexists(target):
        number += 1
        target = wanted.with_name(f"{wanted.name}.{number}")
    shutil.move(source, target)


def _place_link(target: str, path: str) -> Stat:
    """A symbolic link to `target` at `path`."""
    if not (os.path.islink(path) and os.readlink(path) == target):
        beside = _beside(path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        remove_file(beside)
        try:
            os.symlink(target, beside)
            os.rename(beside, path)
        except OSError:
            remove_file(beside)
            raise
    return triple(os.lstat(path))


def _kept(path: str, digest: Digest) -> Stat | None:
    """The stat of the file at `path` if it has this digest already, else None."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    same_kind = stat.S_ISREG(status.st_mode) and bool(status.st_mode & stat.S_IXUSR) == is_executable(digest)
    if not same_kind or status.st_size != size_of(digest):
        return None
    try:
        # A hard link has a blob's mtime, which must stay; any other may have been written a moment ago.
        kept = triple(settle(path) if status.st_nlink == 1 else status)
        return kept if digest_file(path) == plain(digest) and triple(os.lstat(path)) == kept else None
    except OSError:
        return None


# Step folders


def _large_input(source: str, path: str, digest: Digest) -> None:
    """An input over LINKED by the cheapest way that keeps the step's hands off the source. Raises FileChanged."""
    mode = input_mode(digest)
    if _reflinked(source, path, mode):
        if digest_file(path) != plain(digest):
            os.unlink(path)
            raise FileChanged(f"does not hold {digest}: {source}")
        return
    if is_executable(digest) == bool(os.stat(source).st_mode & stat.S_IXUSR) and _linked(source, path):
        return
    descriptor = create(path, mode)
    try:
        _copy_exact(source, descriptor, digest)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def input_mode(digest: Digest) -> int:
    """The mode with which an input is made, less the process's umask."""
    return 0o555 if is_executable(digest) else 0o444

"""Digests of files and folders, and the manifest by which a folder has one digest.

    <hex>-<size>     a file: SHA-256 and size in bytes, what sha256sum prints
    <hex>-<size>*    the same bytes in a file its owner may execute; one blob serves both
    <hex>-<size>/    a folder: digest of its manifest text

A manifest is UTF-8 text, one JSON array a line, sorted by path:

    ["d","empty"]                     a folder with nothing in it; other folders follow from the paths below them
    ["f","rel/path","<hex>-<size>"]   a file
    ["l","rel/link","target"]         a symbolic link that stays inside the folder
    ["x","rel/tool","<hex>-<size>"]   an executable file

Constraints: one text per state of a folder, names with newlines and quotes, readable in a diff (`labmake why`).
Decision: JSON lines, which escape what would break a line. Rejected: git's tree objects, one digest per subfolder: a
folder of results is read and written whole, and would cost one blob per level.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable

from labmake.errors import RuleError, StoreError
from labmake.frozen import frozen
from labmake.model import Digest, canonical, digest_of

BUFFER = 1 << 20
"""Bytes read at once: large enough that hashing, not the calls, takes the time."""


class FileChanged(OSError):
    """A file was written or replaced while it was read, or does not hold what its digest says."""


@frozen
class Entry:
    """A line of a manifest. `kind` is d, f, l or x; `value` a file's digest, a link's target, "" for a folder."""

    kind: str
    path: str
    value: str = ""

    @property
    def digest(self) -> Digest:
        """The digest of a file as an output has it: with `*` if it is executable."""
        return self.value + "*" if self.kind == "x" else self.value


def plain(digest: Digest) -> Digest:
    """The digest without the mark of an executable file."""
    return digest.removesuffix("*")


def blob_of(digest: Digest) -> Digest:
    """The digest of the blob that holds the bytes: of the file, or of the folder's manifest."""
    return digest.rstrip("*/")


def is_folder(digest: Digest) -> bool:
    return digest.endswith("/")


def is_executable(digest: Digest) -> bool:
    return digest.endswith("*")


def hex_of(digest: Digest) -> str:
    """The SHA-256 as 64 hexadecimal digits."""
    return digest[:64]


def size_of(digest: Digest) -> int:
    """The size in bytes of the file, or of the folder's manifest."""
    return int(digest[65:].rstrip("*/"))


def is_file_digest(text: str) -> bool:
    """Whether `text` is the digest of a file, without mark."""
    head, _, size = text.partition("-")
    return len(head) == 64 and not head.strip("0123456789abcdef") and size.isascii() and size.isdigit()


def digest_file(path: str) -> Digest:
    """The digest of a regular file, links followed. Raises what hash_file raises."""
    return hash_file(path)[0]


def output_digest(path: str) -> Digest:
    """The digest of what lies at `path`: a file, with `*` if its owner may execute it, or a folder.

    Raises what hash_file and scan_folder raise.
    """
    if os.path.isdir(path):
        return digest_of(render_manifest(scan_folder(path))) + "/"
    digest, status = hash_file(path)
    return digest + "*" if status.st_mode & stat.S_IXUSR else digest


def hash_file(path: str) -> tuple[Digest, os.stat_result]:
    """The digest of a regular file, and the stat that it had before and after it was read.

    Raises FileChanged if these differ, FileNotFoundError, IsADirectoryError, and RuleError for a pipe, socket or
    device.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # O_NONBLOCK: a pipe without writer would wait for ever
    try:
        before = os.fstat(descriptor)
        if stat.S_ISDIR(before.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a folder", path)
        if not stat.S_ISREG(before.st_mode):
            raise _odd(path, before.st_mode)
        sha, size = hashlib.sha256(), 0
        buffer = memoryview(bytearray(min(BUFFER, before.st_size + 1)))
        while size <= before.st_size and (count := os.readv(descriptor, [buffer])):
            sha.update(buffer[:count])
            size += count
    finally:
        os.close(descriptor)
    after = os.stat(path)
    if size != before.st_size or triple(before) != triple(after):
        raise FileChanged(f"changed while it was read: {path}")
    return f"{sha.hexdigest()}-{size}", after


def triple(status: os.stat_result) -> tuple[int, int, int]:
    """The (size, mtime_ns, inode) by which a file is recognised."""
    return status.st_size, status.st_mtime_ns, status.st_ino


def render_manifest(entries: Iterable[Entry]) -> bytes:
    """The one manifest of these entries. Raises RuleError for a name that is not Unicode text."""
    lines = []
    for entry in sorted(entries, key=lambda entry: entry.path):
        line = [entry.kind, entry.path] if entry.kind == "d" else [entry.kind, entry.path, entry.value]
        try:
            lines.append(canonical(line).encode() + b"\n")
        except UnicodeEncodeError:
            raise RuleError(
                "a file name is not UTF-8",
                [("path", entry.path), ("bytes", os.fsencode(entry.path))],
                ["let the step write names in UTF-8: they are part of the folder's digest on every machine"],
            )
    return b"".join(lines)


def parse_manifest(data: bytes) -> list[Entry]:
    """The entries of a manifest. Raises StoreError unless it is one that render_manifest writes."""
    try:
        entries = [Entry(*json.loads(line)) for line in data.split(b"\n")[:-1]]
        sound = render_manifest(entries) == data and _sound(entries)
    except (ValueError, TypeError, AttributeError, RuleError):
        sound = False
    if not sound:
        raise StoreError(
            "the manifest of a folder is damaged",
            [("digest", digest_of(data) + "/"), ("begins", data[:200].decode(errors="replace"))],
            ["build the target again: a damaged manifest counts as missing"],
        )
    return entries


def _sound(entries: list[Entry]) -> bool:
    """Whether entries can be placed without leaving the folder: a manifest may come from a remote."""
    paths = {entry.path for entry in entries}
    if len(paths) != len(entries):
        return False
    for entry in entries:
        parts = entry.path.split("/")
        if "\0" in entry.path or any(part in ("", ".", "..") for part in parts):
            return False
        if any("/".join(parts[:count]) in paths for count in range(1, len(parts))):
            return False
        fits = {
            "d": entry.value == "",
            "f": is_file_digest(entry.value),
            "x": is_file_digest(entry.value),
            "l": "\0" not in entry.value and _stays_inside(entry.path, entry.value),
        }
        if not fits.get(entry.kind, False):
            return False
    return True


def _stays_inside(link: str, target: str) -> bool:
    """Whether a link at `link` (a path in the folder) to `target` stays in the folder, judged by the text."""
    if not target or target.startswith("/"):
        return False
    reached = os.path.normpath(os.path.join(os.path.dirname(link), target))
    return reached != ".." and not reached.startswith("../")


def scan_folder(path: str, digest: Callable[[str], Digest] = digest_file) -> list[Entry]:
    """The manifest entries of the folder at `path`, sorted; `digest` gives a file's plain digest (a stat cache, say).

    Raises RuleError for a link that leaves the folder and for what is no file, folder or link; FileChanged.
    """
    entries: list[Entry] = []
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with os.scandir(os.path.join(path, prefix)) as listing:
            found = list(listing)
        if not found and prefix:
            entries.append(Entry("d", prefix[:-1]))
        for item in found:
            name = prefix + item.name
            if item.is_symlink():
                entries.append(Entry("l", name, _link(path, name)))
            elif item.is_dir():
                waiting.append(name + "/")
            elif item.is_file():
                executable = item.stat().st_mode & stat.S_IXUSR
                entries.append(Entry("x" if executable else "f", name, digest(item.path)))
            else:
                raise _odd(item.path, item.stat(follow_symlinks=False).st_mode)
    return sorted(entries, key=lambda entry: entry.path)


def _link(folder: str, name: str) -> str:
    """The target of a link that stays in `folder`: by its text, so that it survives a move, and in truth."""
    target = os.readlink(os.path.join(folder, name))
    home = os.path.realpath(folder)
    reached = os.path.realpath(os.path.join(folder, name))
    if _stays_inside(name, target) and (reached + "/").startswith(home + "/"):
        return target
    raise RuleError(
        "a link leaves the folder it lies in",
        [("link", os.path.join(folder, name)), ("points to", target)],
        ["copy the file into the folder, or link to it by a relative path inside the folder"],
    )


def _odd(path: str, mode: int) -> RuleError:
    kinds = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"))
    kind = next((word for test, word in kinds if test(mode)), "a device")
    return RuleError(
        f"not a file that can be kept: {os.path.basename(path)} is {kind}",
        [("path", path)],
        ["let the step remove it before it ends, or write it to its scratch folder"],
    )

"""Closures, the code of a recipe, and the reading of a file's text that is remembered by its digest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any

from labmake.frozen import frozen
from labmake.model import Digest, Json, digest_of


@frozen
class CodeFile:
    """A file of a closure: project path, digest of its bytes, and the digest of what in it may change a result.

    The identity is "" if nothing in it can: it is there to be imported.
    """

    path: str
    digest: Digest
    identity: str


@frozen
class Closure:
    """The code of a recipe, sorted by path."""

    files: tuple[CodeFile, ...] = ()


def union(closures: Iterable[Closure]) -> Closure:
    """All files of several closures; one that they identify differently is identified by its bytes."""
    files: dict[str, CodeFile] = {}
    for file in (file for closure in closures for file in closure.files):
        first = files.setdefault(file.path, file)
        if first != file:
            files[file.path] = CodeFile(file.path, first.digest, first.digest)
    return Closure(tuple(files[path] for path in sorted(files)))


def by_bytes(closure: Closure) -> Closure:
    """The same files, each identified by its bytes: for what reads them as text."""
    return Closure(tuple(CodeFile(file.path, file.digest, file.digest) for file in closure.files))


class Texts:
    """What files say, read once per content: `memo` keeps it as JSON under keys that begin with the file's digest.

    `digest` gives the digest of a project path's bytes and raises FileNotFoundError.
    """

    def __init__(self, root: Path, digest: Callable[[str], Digest], memo: MutableMapping[str, Json]) -> None:
        self.root = root
        self._digest = digest
        self._memo = memo
        self._known: dict[tuple[str, str, str], tuple[Digest, Any]] = {}

    def bytes_only(self, path: str) -> CodeFile:
        """A file that its bytes identify."""
        digest = self._digest(path)
        return CodeFile(path, digest, digest)

    def read(self, path: str, kind: str, analyse: Callable[[bytes, str], Json], part: str = "") -> tuple[Digest, Any]:
        """A file's digest and what `analyse` (named `kind`) says of its bytes and path.

        With `part` it says an object, of which each value is kept by itself, and this one is given.
        """
        known = self._known.get((path, kind, part))
        if known is None:
            digest = self._digest(path)
            said = self._memo.get(f"{digest} {kind} {part}".rstrip())
            if said is None:
                data = (self.root / path).read_bytes()
                # The file may have changed since it was digested; what is kept must belong to these bytes.
                digest = digest_of(data)
                said = analyse(data, path)
                for name, value in said.items() if part else [("", said)]:
                    self._memo[f"{digest} {kind} {name}".rstrip()] = value
                said = said[part] if part else said
            known = self._known[(path, kind, part)] = (digest, said)
        return known

    def recall(self, key: str, find: Callable[[], Json]) -> Any:
        """What `find` says, remembered under a key that tells all it depends on."""
        said = self._memo.get(key)
        if said is None:
            said = self._memo[key] = find()
        return said

    def start(self, path: str) -> bytes:
        """The first 256 bytes of a file."""
        with (self.root / path).open("rb") as file:
            return file.read(256)

"""Step folders: a fresh folder that looks like the project and holds nothing but what was hashed.

It holds the files of the step's code closure at their project paths, the inputs at the paths their rule names, and real
folders for the outputs. Files are copies of, or hard links to, blobs whose digest is the one in the action, so what was
hashed is what runs, however the worktree is edited meanwhile: the store is the code snapshot.

A worker recycles one folder per code state: making and removing a tree cost 1.9 ms a step, which is more than a trivial
step itself takes. After each step everything goes but the code and the copies of inputs; if a code file was touched the
folder is discarded. The next step finds a copy that it needs untouched, or its file is filled anew: ext4 shuns inodes
that were freed in the last seconds, so a file made and removed for each step makes every new file slower, its own and
the step's (a third of all time at 500 steps a second). A failed step keeps its folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labmake.errors import LabmakeError
from labmake.frozen import frozen
from labmake.store.blobs import Blobs
from labmake.store.digest import size_of
from labmake.store.place import LINKED, create_input, input_data, input_mode, place_input, remove_file, write_input

KEPT = 8
"""How many folders with different code a worker keeps for the next steps."""

COPIES = 16
"""How many copies of inputs stay in a folder for its next step; each has a descriptor."""

MARKER = ".here"
"""The root marker: tools that walk up (R's here, dotenv) stop at the step folder."""

File = tuple[str, str, Any, str]
"""(place, digest, location, origin) of an input."""


@frozen
class Copy:
    """An input that was copied into a folder: its open file, its digest, and the stat that it had then."""

    descriptor: int
    digest: str
    known: tuple[int, ...]

    def is_untouched(self) -> bool:
        """Whether nobody wrote it, linked it or changed its mode: none of that leaves the ctime as it was."""
        return _all(os.fstat(self.descriptor)) == self.known

    def lies_at(self, path: str) -> bool:
        """Whether it lies there, with this name alone and the mode that it was made with: a step may have moved it into
        its output, which is now a result."""
        try:
            found = os.lstat(path)
        except OSError:
            return False
        return found.st_ino == self.known[2] and found.st_nlink == 1 and found.st_mode == self.known[4]


def _all(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns, found.st_mode)


@dataclass
class Box:
    """One step folder: where it is, the stat of every file of code, its folders, and its copies of inputs by place."""

    path: str
    code: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    copies: dict[str, Copy] = field(default_factory=dict)


@dataclass
class StepFolders:
    """The step folders of one worker, below `base`."""

    base: Path
    blobs: Blobs
    boxes: dict[tuple[Any, ...], Box] = field(default_factory=dict)
    count: int = 0

    def open(self, code: Sequence[Sequence[Any]], inputs: Sequence[Sequence[Any]], outputs: Collection[str]) -> Box:
        """A folder with these code files and inputs [place, digest, location, origin] and folders for `outputs`.

        Raises FileChanged if an origin no longer has its digest, OSError if the disk does not take it.
        """
        key = tuple([(place, digest) for place, digest, *_ in code])
        box = self.boxes.pop(key, None) or self._make(code)
        self.boxes[key] = box
        while len(self.boxes) > KEPT:
            oldest = next(iter(self.boxes))
            self._remove(self.boxes.pop(oldest))
        try:
            files: list[File] = []
            others: list[File] = []
            for place, digest, location, origin in inputs:
                if place not in box.code:  # a script that is also an input lies there already
                    where = None if location is None else (location[0], location[1], location[2])
                    copied = digest[:1] not in ("", "@") and size_of(digest) <= LINKED
                    (files if copied else others).append((place, digest, where, origin))
            self._make_folders(box, inputs, outputs)
            self._lay_copies(box, files)
            for place, digest, location, origin in others:
                if digest.startswith("@"):
                    os.symlink(digest[1:], os.path.join(box.path, place))
                elif digest:
                    place_input(self.blobs, location, digest, os.path.join(box.path, place), origin)
        except (OSError, LabmakeError):
            self.discard(box)
            raise
        return box

    def _make_folders(self, box: Box, inputs: Sequence[Sequence[Any]], outputs: Iterable[str]) -> None:
        """The folders that this step has, and no others: a listing shall show what its rule names."""
        needed = {place if not digest else os.path.dirname(place) for place, digest, *_ in inputs}
        needed |= {place.rstrip("/") if place.endswith("/") else os.path.dirname(place) for place in outputs}
        needed |= {os.path.dirname(place) for place in box.code}
        needed |= {folder for place in needed for folder in _above(place)}
        needed.discard("")
        if needed == box.folders:
            return
        for place in [place for place in box.copies if place in needed or os.path.dirname(place) not in needed]:
            if os.path.dirname(place) or place in needed:
                self._drop_copy(box, place)
        for folder in sorted(box.folders - needed, reverse=True):
            os.rmdir(os.path.join(box.path, folder))
        for folder in sorted(needed - box.folders):
            os.mkdir(os.path.join(box.path, folder))
        box.folders = needed

    def _lay_copies(self, box: Box, files: Sequence[File]) -> None:
        """Lay the inputs that are copied: one that lies there already stays, else a file of the last step is filled."""
        before, box.copies = box.copies, {}
        left: list[File] = []
        for file in files:
            copy = before.get(file[0])
            if copy is not None and copy.digest == file[1] and copy.is_untouched():
                box.copies[file[0]] = before.pop(file[0])
            else:
                left.append(file)
        try:
            for file in left:
                self._lay(box, file, before)
        finally:
            for place, copy in before.items():
                os.close(copy.descriptor)
                remove_file(os.path.join(box.path, place))

    def _lay(self, box: Box, file: File, before: dict[str, Copy]) -> None:
        place, digest, location, origin = file
        path = os.path.join(box.path, place)
        data = input_data(self.blobs, location, digest, origin)
        old = place if place in before else next(iter(before), None)
        if old is not None:
            copy = before.pop(old)
            if copy.lies_at(os.path.join(box.path, old)) and not (copy.known[4] ^ input_mode(digest)) & 0o100:
                descriptor = copy.descriptor
                if os.pwrite(descriptor, data, 0) != len(data):
                    raise OSError(28, "no space left on the disk", path)
                if copy.known[0] > len(data):
                    os.ftruncate(descriptor, len(data))
                if old != place:
                    os.rename(os.path.join(box.path, old), path)
                box.copies[place] = Copy(descriptor, digest, _all(os.fstat(descriptor)))
                return
            os.close(copy.descriptor)
            remove_file(os.path.join(box.path, old))
        if len(box.copies) >= COPIES:
            write_input(path, digest, data)
            return
        descriptor = create_input(path, digest, data)
        box.copies[place] = Copy(descriptor, digest, _all(os.fstat(descriptor)))

    def _drop_copy(self, box: Box, place: str) -> None:
        os.close(box.copies.pop(place).descriptor)
        remove_file(os.path.join(box.path, place))

    def _make(self, code: Sequence[Sequence[Any]]) -> Box:
        self.count += 1
        box = Box(str(self.base / f"box{self.count}"))
        shutil.rmtree(box.path, ignore_errors=True)
        os.makedirs(box.path)
        with open(os.path.join(box.path, MARKER), "wb"):
            pass
        for place, digest, location, origin in code:
            path = os.path.join(box.path, place)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            where = (location[0], location[1], location[2]) if location is not None else None
            place_input(self.blobs, where, digest, path, origin)
            box.code[place] = _stat(path)
        box.code[MARKER] = _stat(os.path.join(box.path, MARKER))
        box.folders = {folder for place in box.code for folder in _above(place)}
        return box

    def close(self, box: Box, expected: set[str]) -> list[str]:
        """Empty a folder for the next step; returns what the step left beside its outputs and `expected` inputs."""
        left: list[str] = []
        for place, copy in list(box.copies.items()):
            if not copy.lies_at(os.path.join(box.path, place)):
                os.close(box.copies.pop(place).descriptor)
        there: set[str] = set()
        sound = self._empty(box, "", expected, left, there) and there == box.folders
        for place, known in box.code.items():
            sound = sound and _stat(os.path.join(box.path, place)) == known
        if not sound:
            self.discard(box)
        return sorted(left)

    def _empty(self, box: Box, below: str, expected: set[str], left: list[str], there: set[str]) -> bool:
        """Remove all files but the code's and the copies, and folders that this step's rule does not have; the others
        are added to `there`. False if something resists."""
        sound = True
        whole = os.path.join(box.path, below) if below else box.path
        try:
            with os.scandir(whole) as listing:
                entries = list(listing)
            for entry in entries:
                name = f"{below}/{entry.name}" if below else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if name in box.folders:
                        there.add(name)
                        sound = self._empty(box, name, expected, left, there) and sound
                    else:
                        if not _belongs(name, expected) and entry.name != "__pycache__":
                            left.append(name + "/")
                        shutil.rmtree(entry.path)
                elif name not in box.code and name not in box.copies:
                    if name not in expected and not any(name.startswith(e) for e in expected if e.endswith("/")):
                        left.append(name)
                    os.unlink(entry.path)
        except OSError:
            return False
        return sound

    def discard(self, box: Box) -> None:
        """Remove a folder for good."""
        self.boxes = {key: other for key, other in self.boxes.items() if other is not box}
        self._remove(box)

    def _remove(self, box: Box) -> None:
        self._forget_copies(box)
        shutil.rmtree(box.path, ignore_errors=True)

    def _forget_copies(self, box: Box) -> None:
        for copy in box.copies.values():
            os.close(copy.descriptor)
        box.copies.clear()

    def keep(self, box: Box, to: str) -> None:
        """Move a failed step's folder to where a person can look at it; a disk that refuses takes only that away."""
        self.boxes = {key: other for key, other in self.boxes.items() if other is not box}
        self._forget_copies(box)
        shutil.rmtree(to, ignore_errors=True)
        try:
            os.makedirs(os.path.dirname(to), exist_ok=True)
            os.rename(box.path, to)
        except OSError:
            shutil.rmtree(box.path, ignore_errors=True)


def _belongs(folder: str, expected: set[str]) -> bool:
    """Whether a folder holds something that is expected, or lies in a folder that is."""
    return any(e.startswith(folder + "/") or (e.endswith("/") and folder.startswith(e)) for e in expected)


def _above(place: str) -> Iterator[str]:
    """The folders that hold a place, innermost first."""
    while place := os.path.dirname(place):
        yield place


def _stat(path: str) -> tuple[int, int, int]:
    try:
        found = os.lstat(path)
    except OSError:
        return (-1, -1, -1)
    return (found.st_size, found.st_mtime_ns, found.st_ino)

"""Step folders: a fresh folder that looks like the project and holds nothing but what was hashed.

It holds the files of the step's code closure at their project paths, the inputs at the paths their rule names, and real
folders for the outputs. Files are copies of, or hard links to, blobs whose digest is the one in the action, so what was
hashed is what runs, however the worktree is edited meanwhile: the store is the code snapshot.

A worker recycles one folder per code state: making and removing a tree cost 1.9 ms a step, which is more than a trivial
step itself takes. After each step everything but the code is removed; if a code file was touched the folder is
discarded. A failed step keeps its folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labmake.store.blobs import Blobs
from labmake.store.place import place_input

KEPT = 8
"""How many folders with different code a worker keeps for the next steps."""

MARKER = ".here"
"""The root marker: tools that walk up (R's here, dotenv) stop at the step folder."""


@dataclass
class Box:
    """One step folder: where it is, and the stat of every file that stays between steps."""

    path: str
    code: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)


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
        key = tuple((place, digest) for place, digest, *_ in code)
        box = self.boxes.pop(key, None) or self._make(code)
        self.boxes[key] = box
        while len(self.boxes) > KEPT:
            oldest = next(iter(self.boxes))
            shutil.rmtree(self.boxes.pop(oldest).path, ignore_errors=True)
        try:
            for place, digest, location, origin in inputs:
                if place not in box.code:  # a script that is also an input lies there already
                    self._put(box, place, digest, location, origin)
            for place in outputs:
                self._folder(box, place.rstrip("/") if place.endswith("/") else os.path.dirname(place))
            self._drop_folders(box, [place for place, *_ in inputs], outputs)
        except OSError:
            self.discard(box)
            raise
        return box

    def _drop_folders(self, box: Box, inputs: Iterable[str], outputs: Iterable[str]) -> None:
        """Remove the folders that only an earlier step had: a listing shall show what this step's rule names."""
        needed = {place.rstrip("/") for place in (*inputs, *outputs, *box.code)}
        above = {folder for place in needed for folder in _above(place)}
        for folder in sorted(box.folders - needed - above, reverse=True):
            os.rmdir(os.path.join(box.path, folder))
            box.folders.remove(folder)

    def _make(self, code: Sequence[Sequence[Any]]) -> Box:
        self.count += 1
        box = Box(str(self.base / f"box{self.count}"))
        shutil.rmtree(box.path, ignore_errors=True)
        os.makedirs(box.path)
        with open(os.path.join(box.path, MARKER), "wb"):
            pass
        for place, digest, location, origin in code:
            self._put(box, place, digest, location, origin)
            box.code[place] = _stat(os.path.join(box.path, place))
        box.code[MARKER] = _stat(os.path.join(box.path, MARKER))
        return box

    def _put(self, box: Box, place: str, digest: str, location: Sequence[Any] | None, origin: str) -> None:
        """Lay one file, link (digest `@target`) or empty folder (digest "")."""
        path = os.path.join(box.path, place)
        if not digest:
            self._folder(box, place)
            return
        self._folder(box, os.path.dirname(place))
        if digest.startswith("@"):
            os.symlink(digest[1:], path)
            return
        where = (location[0], location[1], location[2]) if location is not None else None
        place_input(self.blobs, where, digest, path, origin)

    def _folder(self, box: Box, folder: str) -> None:
        if folder and folder not in box.folders:
            os.makedirs(os.path.join(box.path, folder), exist_ok=True)
            while folder and folder not in box.folders:
                box.folders.add(folder)
                folder = os.path.dirname(folder)

    def close(self, box: Box, expected: set[str]) -> list[str]:
        """Empty a folder for the next step; returns what the step left beside its outputs and `expected` inputs."""
        left: list[str] = []
        sound = self._empty(box, "", expected, left)
        for place, known in box.code.items():
            sound = sound and _stat(os.path.join(box.path, place)) == known
        if not sound:
            self.discard(box)
        return sorted(left)

    def _empty(self, box: Box, below: str, expected: set[str], left: list[str]) -> bool:
        """Remove all files but the code's, and folders that no step of this code had; False if something resists."""
        sound = True
        whole = os.path.join(box.path, below) if below else box.path
        try:
            with os.scandir(whole) as listing:
                entries = list(listing)
            for entry in entries:
                name = f"{below}/{entry.name}" if below else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if name in box.folders:
                        sound = self._empty(box, name, expected, left) and sound
                    else:
                        if not _belongs(name, expected) and entry.name != "__pycache__":
                            left.append(name + "/")
                        shutil.rmtree(entry.path)
                elif name not in box.code:
                    if name not in expected and not any(name.startswith(e) for e in expected if e.endswith("/")):
                        left.append(name)
                    os.unlink(entry.path)
        except OSError:
            return False
        return sound

    def discard(self, box: Box) -> None:
        """Remove a folder for good."""
        self.boxes = {key: other for key, other in self.boxes.items() if other is not box}
        shutil.rmtree(box.path, ignore_errors=True)

    def keep(self, box: Box, to: str) -> None:
        """Move a failed step's folder to where a person can look at it; a disk that refuses takes only that away."""
        self.boxes = {key: other for key, other in self.boxes.items() if other is not box}
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

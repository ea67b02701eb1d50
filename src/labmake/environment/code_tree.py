"""The project's files as code is looked up in them: listings read once, and what an import statement means there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from labmake.layout import GENERATED

SUFFIXES = (*EXTENSION_SUFFIXES, ".py")
"""In the order in which Python prefers them."""

NEVER = frozenset({"site-packages", "dist-packages", "__pycache__", "node_modules"})

Listing = tuple[frozenset[str], frozenset[str]]
EMPTY: Listing = (frozenset(), frozenset())


class Tree:
    """A project's files and folders without generated/, hidden folders and virtual environments.

    `listed` maps every folder that was looked at (project path, "" for the root) to the names of its files and of its
    folders: an answer holds as long as these listings do, since it also depends on files that are absent.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.listed: dict[str, Listing] = {}
        self.found: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[str, ...]]] = {}
        """What find_dotted found."""

    def listing(self, folder: str) -> Listing:
        """The names of the files and of the folders in `folder`, both empty if it is none."""
        found = self.listed.get(folder)
        if found is None:
            parent, _, name = folder.rpartition("/")
            present = not folder or name in self.listing(parent)[1]
            if not present:
                return EMPTY
            found = self.listed[folder] = self._scan(folder)
        return found

    def _scan(self, folder: str) -> Listing:
        files, folders = set(), set()
        try:
            with os.scandir(self.root / folder) as entries:
                for entry in entries:
                    if entry.is_dir():
                        folders.add(entry.name)
                    elif entry.is_file():
                        files.add(entry.name)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return EMPTY
        if folder and "pyvenv.cfg" in files:
            return EMPTY
        if not folder:
            folders.discard(GENERATED)
        return frozenset(files), frozenset(name for name in folders if name not in NEVER and not name.startswith("."))

    def is_file(self, path: str) -> bool:
        """Is this project path a file that may be code?"""
        folder, _, name = path.rpartition("/")
        return name in self.listing(folder)[0]

    def is_folder(self, path: str) -> bool:
        """Is this project path a folder that may hold code? The root, "", is one."""
        folder, _, name = path.rpartition("/")
        return not path or name in self.listing(folder)[1]

    def walk(self, folder: str) -> Iterator[str]:
        """The project paths of all files in a folder and below it, sorted within each folder."""
        yield from self._walk(folder, frozenset())

    def _walk(self, folder: str, above: frozenset[str]) -> Iterator[str]:
        real = os.path.realpath(self.root / folder)
        if real in above:
            return
        files, folders = self.listing(folder)
        yield from (join(folder, name) for name in sorted(files) if not name.endswith(".pyc"))
        for name in sorted(folders):
            yield from self._walk(join(folder, name), above | {real})


def join(folder: str, name: str) -> str:
    """The project path of `name` in `folder`."""
    return f"{folder}/{name}" if folder else name


def find_module(tree: Tree, name: str, folders: Iterable[str]) -> tuple[str | None, list[str]]:
    """The file of module `name`, looked for in `folders` as Python does, and where its submodules lie.

    A namespace package has no file and may lie in several folders; a module that is not found has neither.
    """
    portions: list[str] = []
    for folder in folders:
        files, below = tree.listing(folder)
        base = join(folder, name)
        if name in below:
            inside = tree.listing(base)[0]
            for suffix in SUFFIXES:
                if f"__init__{suffix}" in inside:
                    return f"{base}/__init__{suffix}", [base]
            portions.append(base)
        for suffix in SUFFIXES:
            if name + suffix in files:
                return base + suffix, []
    return None, portions


def find_dotted(tree: Tree, dotted: str, folders: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files that importing `dotted` reads, its parents' first, and where the submodules of the last one lie."""
    known = tree.found.get((dotted, *folders))
    if known is None:
        files: list[str] = []
        places = list(folders)
        for name in dotted.split(".") if dotted else ():
            file, places = find_module(tree, name, places)
            if file is not None:
                files.append(file)
            if not places:
                break
        known = tree.found[(dotted, *folders)] = (tuple(files), tuple(places))
    return list(known[0]), list(known[1])


def relative_base(tree: Tree, path: str, level: int) -> tuple[list[str], str] | None:
    """The folder that a relative import of `level` dots in file `path` means, and the `__init__` files above it.

    None if it leaves the project.
    """
    folder = path.rpartition("/")[0]
    for _ in range(level - 1):
        if not folder:
            return None
        folder = folder.rpartition("/")[0]
    inits, above = [], folder
    while above:
        found = [f"{above}/__init__{suffix}" for suffix in SUFFIXES if tree.is_file(f"{above}/__init__{suffix}")]
        if not found:
            break
        inits += found[:1]
        above = above.rpartition("/")[0]
    return inits, folder


def site_folders() -> list[str]:
    """The folders of this interpreter's path in which installed distributions lie."""
    return [entry for entry in sys.path if os.path.basename(entry) in ("site-packages", "dist-packages")]


def editable_roots(root: Path, sites: Iterable[str]) -> list[str]:
    """The project folders that `*.pth` files of site-packages put on Python's path, sorted by site and file."""
    found: dict[str, None] = {}
    real = os.path.realpath(root)
    for site in sites:
        try:
            names = sorted(name for name in os.listdir(site) if name.endswith(".pth"))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        for line in (line for name in names for line in _lines(os.path.join(site, name))):
            path = os.path.realpath(os.path.join(site, line))
            relative = os.path.relpath(path, real)
            parts = relative.split("/")
            hidden = any(part.startswith(".") or part in NEVER for part in parts if part != ".")
            if parts[0] not in ("..", GENERATED) and not hidden and os.path.isdir(path):
                found["" if relative == "." else relative] = None
    return list(found)


def _lines(path: str) -> list[str]:
    try:
        text = Path(path).read_text("utf-8", "replace")
    except OSError:
        return []
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith(("#", "import ", "import\t"))]

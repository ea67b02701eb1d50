"""Outputs in the worktree: are they as recorded, may they be replaced, and putting them back from the store."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

from labmake.engine.placing import Item, Place
from labmake.engine.services import Services
from labmake.errors import Edited, LabmakeError, StoreError
from labmake.layout import experiment_of, short
from labmake.model import Digest, Fact, Stat
from labmake.store.blobs import SMALL
from labmake.store.digest import FileChanged, digest_file, is_folder, output_digest, parse_manifest, plain, size_of
from labmake.store.place import alone_in, place_file, place_folder, remove_empty_parents, remove_file

TRIES = 5
"""How often a file that changes while it is read is read again before it is taken for one that a person writes."""

Placed = tuple[Digest, "Stat | dict[str, Stat] | None"]
"""A target's digest and its stat as it was placed; None for a temporary one that was removed."""

GONE = (FileNotFoundError, NotADirectoryError)
"""How the system says that there is nothing at a path."""


def stat_of(path: str) -> Stat | None:
    """(size, mtime_ns, inode) of a regular file; None for anything else or nothing. Raises OSError if the disk fails:
    what cannot be looked at is neither missing nor edited."""
    try:
        found = os.lstat(path)
    except GONE:
        return None
    return (found.st_size, found.st_mtime_ns, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _stat_inside(path: str) -> Stat | None:
    """As stat_of, of a file or a link in a folder target."""
    try:
        found = os.lstat(path)
    except GONE:
        return None
    kept = stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)
    return (found.st_size, found.st_mtime_ns, found.st_ino) if kept else None


def mode_of(path: str | Path) -> int:
    """The mode of what lies at a path, links not followed; 0 if nothing does. Raises OSError if the disk fails, unlike
    os.path's questions, which then say that there is nothing."""
    try:
        return os.lstat(path).st_mode
    except GONE:
        return 0


def is_real_folder(path: str) -> bool:
    """Whether a folder, and no link to one, lies at a path."""
    return stat.S_ISDIR(mode_of(path))


def walk(folder: str, below: str = "") -> Iterator[str]:
    """The relative paths of everything in a folder that is no folder, without what is taken away meanwhile."""
    try:
        entries = os.scandir(os.path.join(folder, below) if below else folder)
    except FileNotFoundError:
        if not below:
            raise
        return
    with entries:
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from walk(folder, path)
            else:
                yield path


def touched(services: Services, fact: Fact) -> list[str]:
    """The targets of a fact that are not as they were placed: missing, edited, or a folder with other files."""
    return [path for path, placed in fact.outputs.items() if not as_placed(services.absolute(path), placed)]


def taken_in(services: Services, fact: Fact) -> bool:
    """Whether the store has the content of a fact's targets; what it lost is taken from files that lie as placed."""
    for path, placed in fact.outputs.items():
        if services.blobs.is_sound(placed[0]):
            continue
        place = services.absolute(path)
        if is_folder(placed[0]) or not as_placed(place, placed):
            return False
        try:
            services.blobs.put_copy(place, placed[0])
        except (OSError, FileChanged):
            return False
    return True


def as_placed(path: str, placed: Placed) -> bool:
    """Whether the file or folder at `path` has the stats with which it was placed."""
    recorded = placed[1]
    if recorded is None:
        return not mode_of(path.rstrip("/"))
    if isinstance(recorded, dict):
        try:
            present = set(walk(path))
        except GONE:
            return False
        return present == set(recorded) and all(
            _stat_inside(os.path.join(path, name)) == tuple(known) for name, known in recorded.items() if known
        )
    return stat_of(path) == tuple(recorded)


def lying(services: Services, wanted: Mapping[str, Digest], fact: Fact | None) -> dict[str, Placed]:
    """Those of the wanted targets that lie as the fact placed them: they need not be read again."""
    if fact is None:
        return {}
    return {
        path: placed
        for path, placed in fact.outputs.items()
        if wanted.get(path) == placed[0] and placed[1] is not None and as_placed(services.absolute(path), placed)
    }


def restored(
    services: Services, wanted: Mapping[str, Digest], fact: Fact | None, discard: bool
) -> Generator[Place, list[Stat | None], dict[str, Placed] | None]:
    """As `restore`, but small files where nothing lies are left to the scheduler, which places many at once."""
    items: dict[str, Item] = {}
    for path, digest in wanted.items():
        location = services.blobs.locate(digest)
        if location is None or (is_folder(digest) and not services.blobs.has(digest)):
            return None
        place = services.absolute(path)
        if not is_folder(digest) and size_of(digest) <= SMALL and not mode_of(place):
            _check_way(services, path)
            items[path] = (place, digest, location)
    placed: dict[str, Placed] = {}
    if items:
        answers = yield Place(tuple(items.values()))
        found = zip(items, answers, strict=True)
        placed = {path: (wanted[path], stat) for path, stat in found if stat is not None}
    rest = restore(services, {path: d for path, d in wanted.items() if path not in placed}, fact, discard)
    return None if rest is None else {path: placed.get(path) or rest[path] for path in wanted}


def restore(
    services: Services, wanted: Mapping[str, Digest], fact: Fact | None, discard: bool
) -> dict[str, Placed] | None:
    """Put targets in their places from the store; those that are there already are adopted.

    Returns what lies there, or None if the store has lost a blob. Raises Edited if a file that nobody has a copy of
    is in the way and `discard` is false.
    """
    if not all(services.blobs.has(digest) for digest in wanted.values()):
        return None
    for path, digest in wanted.items():
        protect(services, path, digest, fact, discard)
    try:
        return {path: (digest, put(services, path, digest)) for path, digest in wanted.items()}
    except StoreError:
        if all(services.blobs.has(digest) for digest in wanted.values()):
            raise
        return None  # reading has shown that it is damaged


def put(services: Services, path: str, digest: Digest) -> Stat | dict[str, Stat]:
    """Place one file or folder, unless exactly it lies there already."""
    place = services.absolute(path)
    if is_folder(digest):
        os.makedirs(os.path.dirname(place), exist_ok=True)
        return place_folder(services.blobs, digest, place, services.aside / stamp(services) / path)
    there = stat_of(place)
    if there is not None and _digest(place) == digest:
        return there
    return place_file(services.blobs, digest, place)


def stamp(services: Services) -> str:
    """The name of the folder in which what is set aside now is kept; no two builds share one, so nothing collides."""
    return f"{time.strftime('%Y-%m-%d-%H%M%S', time.localtime(services.clock.now()))}-{os.getpid()}"


def _holds(place: str, digest: Digest) -> bool:
    """Whether exactly the file or folder with this digest lies at `place`."""
    try:
        return not stat.S_ISLNK(mode_of(place)) and output_digest(place) == digest
    except (*GONE, PermissionError, IsADirectoryError, FileChanged, LabmakeError):
        return False


def _digest(place: str) -> Digest | None:
    try:
        executable = os.lstat(place).st_mode & 0o100
        return digest_file(place) + ("*" if executable else "")
    except (*GONE, PermissionError, FileChanged):
        return None


def protect(services: Services, path: str, digest: Digest | None, fact: Fact | None, discard: bool) -> None:
    """Raise Edited if `path` holds something that is lost when it is replaced; with `discard`, set it aside instead.

    A file may be replaced if it is as placed, or the store holds its content.
    """
    place = services.absolute(path)
    if not mode_of(place):
        _check_way(services, path)
        return
    if fact is not None and path in fact.outputs and as_placed(place, fact.outputs[path]):
        return
    bad = list(_unknown(services, path, digest, fact))
    if not bad or (digest is not None and _holds(place, digest)):
        return
    if discard:
        for name in bad:
            set_aside(services, name)
        return
    raise _edited(services, path, bad)


def make_way(services: Services, path: str, fact: Fact | None) -> None:
    """Set aside what is nobody's in a folder target's place: which files its step will make is not known yet."""
    place = services.absolute(path)
    if fact is not None and path in fact.outputs and as_placed(place, fact.outputs[path]):
        return
    if path.endswith("/") and is_real_folder(place):
        for name in list(walk(place)):
            if not _known_inside(services, path, name, None, fact):
                set_aside(services, path + name)


def _unknown(services: Services, path: str, digest: Digest | None, fact: Fact | None) -> Iterator[str]:
    """The project paths of files at a target's place whose content is nowhere else.

    In a folder only those count that belong to it, now or when it is `digest`: others are moved aside later.
    """
    place = services.absolute(path)
    folder = path.endswith("/")
    if folder and is_real_folder(place):
        ours = set(fact.outputs[path][1]) if fact is not None and path in fact.outputs else set()
        if digest is not None and services.blobs.has(digest):
            ours |= {entry.path for entry in parse_manifest(services.blobs.read(digest))}
        for name in walk(place):
            if name in ours and not _known_inside(services, path, name, digest, fact):
                yield path + name
    elif folder or not _known(services, place):
        yield path.rstrip("/")


def _known(services: Services, place: str) -> bool:
    """Whether nothing is lost when what lies at `place` goes: the store has it, or another build has just taken it."""
    for _ in range(TRIES):
        try:
            return stat.S_ISREG(os.lstat(place).st_mode) and services.blobs.has(digest_file(place))
        except FileChanged:
            continue  # another build has just replaced it, or a person writes
        except FileNotFoundError:
            return True
        except PermissionError:
            return False
    return False


def _known_inside(services: Services, path: str, name: str, digest: Digest | None, fact: Fact | None) -> bool:
    """As _known, of a file or a link in a folder target. A link is known if a manifest has it; what nobody recorded
    (the state was lost) may go if it points to a neighbour, as links of results do."""
    place = services.absolute(path + name)
    if not stat.S_ISLNK(mode_of(place)):
        return _known(services, place)
    target = os.readlink(place)
    before = fact.outputs[path][0] if fact is not None and path in fact.outputs else None
    for manifest in (digest, before):
        if manifest is not None and services.blobs.has(manifest):
            entries = parse_manifest(services.blobs.read(manifest))
            if any(entry.kind == "l" and (entry.path, entry.value) == (name, target) for entry in entries):
                return True
    return before is None and not os.path.normpath(os.path.join(os.path.dirname(name), target)).startswith(("/", ".."))


def _check_way(services: Services, path: str) -> None:
    """Raise Edited if a file stands where one of the target's folders has to be."""
    parts = path.rstrip("/").split("/")
    above = "/".join(parts[:-1])
    if above in services.folders:
        return
    for count in range(1, len(parts)):
        folder = services.absolute("/".join(parts[:count]))
        if mode_of(folder) and not is_real_folder(folder) and not os.path.isdir(folder):
            raise Edited(
                "a file stands where a folder is needed; it is kept",
                [("target", path), ("file", "/".join(parts[:count]))],
                ["move it away, then build again"],
            )
    services.folders.add(above)


def _edited(services: Services, path: str, bad: list[str]) -> Edited:
    name = short(path, experiment_of(path) or "")
    shown = bad[:5] + ([f"and {len(bad) - 5} more"] if len(bad) > 5 else [])
    return Edited(
        f"{name} was edited, or was not made by labmake; it is kept",
        [("file", "\n".join(shown) if len(shown) > 1 else shown[0])],
        [
            f"to keep your version, copy it to another name, then `labmake restore {name}`",
            "to give it up: `labmake build --discard-edits` (it is set aside in the state folder)",
        ],
    )


def set_aside(services: Services, path: str) -> None:
    """Move a file out of a target's place, keep it and tell where it is now, unless another build has just done so."""
    to = services.aside / stamp(services) / path
    to.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while mode_of(to):
        to = to.with_name(f"{to.name}.{number}")
        number += 1
    try:
        os.replace(services.absolute(path), to)
    except FileNotFoundError:
        return
    services.reporter.note(f"set aside {path}: now {to}")


def remove(services: Services, fact: Fact) -> list[str]:
    """Remove the targets of a fact that nobody edited; returns them. A file that was only touched was not edited."""
    gone = []
    for path, placed in fact.outputs.items():
        place = services.absolute(path)
        if not mode_of(place) or not (as_placed(place, placed) or _holds(place, placed[0])):
            continue
        try:
            _take_away(place, placed)
        except OSError:
            if _holds(place, placed[0]):
                raise
            continue  # another command removes it at this moment, or puts something there
        remove_empty_parents(place, str(services.project.root / "generated"))
        gone.append(path)
    return gone


def _take_away(place: str, placed: Placed) -> None:
    if not isinstance(placed[1], dict):
        os.unlink(place)
        return
    with alone_in(os.path.dirname(place)):
        for name in sorted(walk(place), reverse=True):
            remove_file(os.path.join(place, name))
        for folder, _, _ in os.walk(place, topdown=False):
            os.rmdir(folder)


def read_target(services: Services, digest: Digest, origin: str) -> bytes:
    """The content of a file with this digest: from the worktree if it is a source, else from the store."""
    if not origin:
        return services.blobs.read(digest)
    data = Path(origin).read_bytes()
    from labmake.model import digest_of

    if digest_of(data) != plain(digest):
        services.stats.forget(origin)
        raise StoreError(
            "a file changed while it was read",
            [("file", origin)],
            ["build again when nothing writes to it"],
        )
    return data

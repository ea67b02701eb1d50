"""Gear 1 of a null build: a snapshot of all that a command looked at, compared before anything else is imported.

    state/gear1/<crc of the question>   marshal of (VERSION, question, variables, root, placed, looked, absent, told)

`question` is the working directory and the words of the command line, `variables` the environment variables that count,
`placed` and `looked` are pairs of one NUL-joined text of paths relative to `root` and their stats as one packed array:
(size, mtime_ns, inode) of targets, and with ctime_ns of files and folders that were read (an edit may put the mtime
back; a target's ctime changes when its blob is linked elsewhere). `absent` are paths that were not there, `told` is
what the command says when nothing has changed.

Constraints: a null build of 100 000 steps has to cost little more than its stats, so this file imports nothing that is
not built in, and compares bytes, not tuples. Decision: one snapshot per question, written after a build that failed
nowhere, from the stats that the build itself saw; gear 2 decides whenever anything differs. Rejected: asking the state
file, whose import alone costs 4 ms and whose rows cost more than the stats.
"""

import array
import marshal
import os
import sys
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 2

LARGE = 1 << 20
"""As in store.stats, which this file does not import: bytes above which a step may see a file as a hard link."""

FORKED = 4_000
"""Paths above which the stats are taken by two processes: threads do not help, stat holds the interpreter's lock.

A fork costs as much as 600 stats: 20 000 steps take 0.115 s instead of 0.175 s.
"""


def question(words: list[str], folder: str) -> str:
    """What is asked: the command line and where, with the interpreter that answers."""
    return "\0".join([sys.executable, folder, *words])


def state_folder(folder: str) -> str | None:
    """labmake's state for a working directory, found as layout.find_project does, without importing it."""
    plain = None
    while True:
        dot = os.path.join(folder, ".git")
        if os.path.isdir(dot):
            return os.path.join(dot, "labmake")
        if os.path.isfile(dot):
            return None  # a linked worktree: gear 2 knows where its common folder is
        if plain is None and os.path.isdir(os.path.join(folder, ".labmake")):
            plain = os.path.join(folder, ".labmake")
        above = os.path.dirname(folder)
        if above == folder:
            return plain
        folder = above


def file_of(state: str, asked: str) -> str:
    """Where the snapshot of a question lies."""
    return os.path.join(state, "state", "gear1", f"{zlib.crc32(asked.encode('utf-8', 'surrogateescape')):08x}")


def look(words: list[str], folder: str) -> tuple[str | None, list[str] | None]:
    """What to tell if nothing has changed since the question was last answered, else None and the paths that changed.

    (None, None) if that is not known, or something changed that is no single file.
    """
    state = state_folder(folder)
    asked = question(words, folder)
    kept = read(state, asked) if state is not None else None
    if kept is None:
        return None, None
    _, _, variables, root, placed, looked, absent, told = kept
    if any(os.environ.get(name) != value for name, value in variables):
        return None, None
    if any(os.path.lexists(os.path.join(root, path)) for path in absent):
        return None, None
    os.chdir(root)
    try:
        changed = _changed(looked[0], looked[1], 4) + _changed(placed[0], placed[1], 3)
    finally:
        os.chdir(folder)
    return (None, changed) if changed else (told, None)


def read(state: str, asked: str) -> "tuple[Any, ...] | None":
    """The snapshot of a question as `write` kept it; None if there is none."""
    try:
        with open(file_of(state, asked), "rb") as file:
            kept = marshal.loads(file.read())
        return kept if kept[:2] == (VERSION, asked) and len(kept) == 8 else None
    except (OSError, ValueError, EOFError, TypeError):
        return None


def _changed(text: bytes, stats: bytes, numbers: int) -> list[str]:
    """The paths whose stats are not the kept ones."""
    paths = os.fsdecode(text).split("\0") if text else []
    if len(paths) <= FORKED:
        return _differing(paths, stats, numbers)
    half = len(paths) // 2
    cut = half * numbers * 8
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        found = "\0".join(_differing(paths[:half], stats[:cut], numbers))
        with open(writing, "wb") as told:
            told.write(os.fsencode(found))
        os._exit(0)
    os.close(writing)
    changed = _differing(paths[half:], stats[cut:], numbers)
    with open(reading, "rb") as told:
        others = os.fsdecode(told.read())
    _, status = os.waitpid(child, 0)
    if status != 0:
        return changed + _differing(paths[:half], stats[:cut], numbers)
    return changed + others.split("\0") if others else changed


def _differing(paths: list[str], stats: bytes, numbers: int) -> list[str]:
    """As _changed, by halves: a few changes among many cost a few comparisons of bytes."""
    now = packed(paths, numbers)
    if now == stats:
        return []
    if len(paths) == 1:
        return paths
    if now is None:
        half = len(paths) // 2
        cut = half * numbers * 8
        return _differing(paths[:half], stats[:cut], numbers) + _differing(paths[half:], stats[cut:], numbers)
    size = numbers * 8
    ranges, changed = [(0, len(paths))], []
    while ranges:
        start, end = ranges.pop()
        if now[start * size : end * size] == stats[start * size : end * size]:
            continue
        if end - start == 1:
            changed.append(paths[start])
        else:
            middle = (start + end) // 2
            ranges += [(start, middle), (middle, end)]
    return changed


def packed(paths: list[str], numbers: int) -> bytes | None:
    """The stats of paths, packed: 3 or 4 `numbers` each; None if one is not there."""
    found = array.array("q")
    add, stat = found.append, os.lstat
    try:
        if numbers == 3:
            for path in paths:
                seen = stat(path)
                add(seen.st_size)
                add(seen.st_mtime_ns)
                add(seen.st_ino)
        else:
            for path in paths:
                seen = stat(path)
                found.extend(four(seen))
    except (OSError, ValueError):
        return None
    return found.tobytes()


def four(seen: os.stat_result) -> tuple[int, int, int, int]:
    """(size, mtime_ns, inode, ctime_ns) of what was looked at; of a large file, whose ctime links change, 0 for it."""
    ctime = seen.st_ctime_ns if seen.st_size <= LARGE else 0
    return seen.st_size, seen.st_mtime_ns, seen.st_ino, ctime


def write(
    state: str,
    asked: str,
    variables: dict[str, str | None],
    root: str,
    placed: dict[str, tuple[int, int, int]],
    looked: dict[str, tuple[int, int, int, int]],
    absent: list[str],
    told: str,
) -> None:
    """Keep the snapshot of a question: paths (relative to `root`, or absolute) with the stats that were seen."""
    parts = [
        (os.fsencode("\0".join(stats)), array.array("q", [n for stat in stats.values() for n in stat]).tobytes())
        for stats in (placed, looked)
    ]
    data = marshal.dumps((VERSION, asked, sorted(variables.items()), root, *parts, sorted(absent), told))
    keep(file_of(state, asked), data)


def keep(target: str, data: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    beside = f"{target}.{os.getpid()}"
    with open(beside, "wb") as file:
        file.write(data)
    os.replace(beside, target)


def unpacked(kept: "tuple[bytes, bytes]", numbers: int) -> "dict[str, tuple[int, ...]]":
    """The stats of a snapshot's part by path."""
    paths = os.fsdecode(kept[0]).split("\0") if kept[0] else []
    flat = array.array("q", kept[1])
    return {path: tuple(flat[i * numbers : (i + 1) * numbers]) for i, path in enumerate(paths)}

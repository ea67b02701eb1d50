"""Gear 1 of a null build: a snapshot of all that a command looked at, compared before anything else is imported.

    gear1/<crc of the question>   marshal of (VERSION, question, variables, root, placed, looked, absent, told)

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

VERSION = 1

LARGE = 1 << 20
"""As in store.stats, which this file does not import: bytes above which a step may see a file as a hard link."""

FORKED = 50_000
"""Paths above which the stats are taken by two processes: threads do not help, stat holds the interpreter's lock."""


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
    return os.path.join(state, "gear1", f"{zlib.crc32(asked.encode('utf-8', 'surrogateescape')):08x}")


def unchanged(words: list[str], folder: str) -> str | None:
    """What to tell if nothing has changed since the question was last answered; None if that is not known."""
    state = state_folder(folder)
    if state is None:
        return None
    asked = question(words, folder)
    try:
        with open(file_of(state, asked), "rb") as file:
            version, same, variables, root, placed, looked, absent, told = marshal.loads(file.read())
    except (OSError, ValueError, EOFError, TypeError):
        return None
    if version != VERSION or same != asked:
        return None
    for name, value in variables:
        if os.environ.get(name) != value:
            return None
    os.chdir(root)
    try:
        same_now = _compare(looked[0], looked[1], 4) and _compare(placed[0], placed[1], 3)
    finally:
        os.chdir(folder)
    if not same_now or any(os.path.lexists(os.path.join(root, path)) for path in absent):
        return None
    return str(told)


def _compare(text: bytes, stats: bytes, numbers: int) -> bool:
    paths = os.fsdecode(text).split("\0") if text else []
    if len(paths) <= FORKED:
        return packed(paths, numbers) == stats
    half = len(paths) // 2
    cut = half * numbers * 8
    child = os.fork()
    if child == 0:
        os._exit(0 if packed(paths[:half], numbers) == stats[:cut] else 1)
    same = packed(paths[half:], numbers) == stats[cut:]
    _, status = os.waitpid(child, 0)
    return same and status == 0


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
    target = file_of(state, asked)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    beside = f"{target}.{os.getpid()}"
    with open(beside, "wb") as file:
        file.write(data)
    os.replace(beside, target)

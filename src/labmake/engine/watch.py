"""Plans are watched: what they open, list, start or connect to would be a read that no fact records."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from labmake.errors import RuleError, Where

_WATCHED = {
    "open": "opens a file",
    "os.listdir": "lists a folder",
    "os.scandir": "lists a folder",
    "subprocess.Popen": "starts a process",
    "os.system": "starts a process",
    "os.posix_spawn": "starts a process",
    "os.fork": "starts a process",
    "os.exec": "starts a process",
    "socket.connect": "connects to a server",
}
_watching: Watched | None = None
_installed = False


class Watched:
    """While it is entered, an open, listing, process or socket of the plan is an error; imports are not.

    `refused` is the first such error: it counts even if the plan caught it.
    """

    def __init__(self, where: Where) -> None:
        self.where = where
        self.refused: RuleError | None = None

    def __enter__(self) -> Watched:
        global _watching, _installed
        if not _installed:
            sys.addaudithook(_audit)
            _installed = True
        _watching = self
        return self

    def __exit__(self, *_: object) -> None:
        global _watching
        _watching = None


@contextlib.contextmanager
def unwatched() -> Iterator[None]:
    """While it is entered, labmake itself may open files for a plan that is watched."""
    global _watching
    watching, _watching = _watching, None
    try:
        yield
    finally:
        _watching = watching


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching is None or event not in _WATCHED:
        return
    frame = sys._getframe(1)
    caller = None
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib") or name.endswith(("linecache.py", "tokenize.py")):
            return
        if caller is None and not name.startswith(os.path.dirname(os.__file__)):
            caller = name, frame.f_lineno
        if frame.f_back is None:
            break
        frame = frame.f_back
    where = _watching.where
    name, line = caller or ("?", 0)
    place = Where(where.file if name.endswith(os.sep + where.file) else name, line)
    error = RuleError(
        f"a plan {_WATCHED[event]}",
        [("what", _subject(event, arguments)), ("line", place)],
        ["a plan sees targets through read_json, read_csv, read_text, listdir, find, need and env only"],
        where,
    )
    _watching.refused = _watching.refused or error
    raise error


def _subject(event: str, arguments: tuple[Any, ...]) -> str:
    """What was opened, started or connected to, as far as the event tells it."""
    told = arguments[1] if event == "socket.connect" else arguments[0] if arguments else ""
    if isinstance(told, (bytes, os.PathLike)):
        return os.fsdecode(told)
    return ":".join(map(str, told)) if isinstance(told, tuple) else str(told)

"""hashes.txt: the hash of every datum that an experiment used, in the format of sha256sum.

Constraints: coreutils alone must be able to check it, a merge of two branches must be readable, and any name must fit.
Decision: sha256sum's own lines, sorted by name, one datum a line: 64 hex digits, two spaces, name. A name with a
backslash, newline or carriage return makes the line start with a backslash and has these three escaped. Data from
elsewhere are ordinary lines with their address as the name. Lines that start with `#` are comments and stay on top.
Rejected: JSON or TOML, which nothing on every machine checks; the sizes beside the hashes, for the same reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from labmake.errors import RuleError, Where

_LINE = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)", re.DOTALL)
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_MEANINGS = {written: meant for meant, written in _ESCAPES.items()}


def parse(text: str, name: str) -> dict[str, str]:
    """name of the datum → 64 hex digits in lower case; `name` is the file in errors.

    Raises RuleError with the line for one that sha256sum would not understand, and for two hashes of one name.
    """
    hashes: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        # A carriage return of a name is escaped, so one at the end of a line was left by an editor.
        line = line.removesuffix("\r")
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        datum = None if found is None else _unescaped(found[3]) if found[1] else found[3]
        if found is None or datum is None:
            raise RuleError(
                f"{name} has a line that is not sha256sum's",
                [("file", Where(name, number)), ("line", line)],
                ["a line is 64 hex digits, two spaces and a name; delete it, and the next build writes it anew"],
            )
        digits = found[2].lower()
        if hashes.setdefault(datum, digits) != digits:
            raise RuleError(
                f"{name} has two hashes for one name",
                [("file", Where(name, number)), ("name", datum), ("first", hashes[datum]), ("then", digits)],
                ["delete the wrong one; after a merge: the one of the data you mean"],
            )
    return hashes


def _unescaped(text: str) -> str | None:
    if re.fullmatch(r"(?:[^\\]|\\[\\nr])*", text) is None:
        return None
    return re.sub(r"\\[\\nr]", lambda found: _MEANINGS[found[0]], text)


def render(hashes: Mapping[str, str]) -> str:
    """The lines of `hashes` (name → hex digits), sorted by name, each with its newline.

    Raises RuleError for a name that no line can hold.
    """
    for datum in hashes:
        if not datum or "\0" in datum:
            raise RuleError(
                "not a name for a line of hashes.txt", [("name", repr(datum))], ["name the datum otherwise"]
            )
    return "".join(_line(datum, hashes[datum]) for datum in sorted(hashes))


def _line(datum: str, digits: str) -> str:
    escaped = re.sub(r"[\\\n\r]", lambda found: _ESCAPES[found[0]], datum)
    return f"{'' if escaped == datum else chr(92)}{digits}  {escaped}\n"


def update(path: Path, new: Mapping[str, str], remove: Collection[str] = ()) -> bool:
    """Put the hashes `new` into the file at `path` and take the names `remove` out; True if the file changed.

    A reader sees the old file or the new one. Two writers at once must be kept apart by the caller.
    Raises RuleError if the file is malformed.
    """
    place = Path(os.path.realpath(path))
    try:
        old = place.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        old = ""
    kept = {datum: digits for datum, digits in parse(old, str(path)).items() if datum not in remove}
    comments = "".join(f"{line.rstrip()}\n" for line in old.split("\n") if line.startswith("#"))
    text = comments + render({**kept, **new})
    if text == old:
        return False
    beside = place.with_name(f".{place.name}-{os.getpid()}")
    try:
        beside.write_bytes(text.encode("utf-8", "surrogateescape"))
        if place.exists():
            beside.chmod(place.stat().st_mode & 0o7777)
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
    return True

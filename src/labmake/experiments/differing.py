"""How two versions of a file or folder differ, in a few lines a person reads."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence

from labmake.store.digest import Entry

MOST = 16
"""Lines of a difference that are shown of each file."""

WIDE = 160
"""Characters of a line that are shown."""

LARGE = 1 << 20
"""Bytes above which a text is not compared line by line: that takes seconds."""


def lines_between(path: str, before: bytes | None, after: bytes | None, most: int = MOST) -> list[str]:
    """The lines that differ between two versions of a file, with one line of context; None is no file.

    JSON is compared as if each of its values had its own line. Other than text is told by its size.
    """
    if before == after:
        return []
    if before is None or after is None:
        return [f"+ {_size(after)}" if after is not None else f"- {_size(before or b'')}"]
    texts = [_text(path, data) for data in (before, after)]
    if texts[0] is None or texts[1] is None:
        return [f"{_size(before)} → {_size(after)}"]
    found = list(difflib.unified_diff(texts[0], texts[1], n=1, lineterm=""))[2:]
    return _cut(found, most) or ["only the ends of its lines, or what JSON does not count, differ"]


def entries_between(before: Sequence[Entry], after: Sequence[Entry], most: int = MOST) -> list[str]:
    """The files of a folder that were added (+), removed (-) or changed (~)."""
    old, new = ({entry.path: entry for entry in entries if entry.kind != "d"} for entries in (before, after))
    found = []
    for path in sorted({*old, *new}):
        if path not in old or path not in new:
            found.append(f"{'+' if path in new else '-'} {path}")
        elif old[path] != new[path]:
            found.append(f"~ {path}")
    return _cut(found, most)


def _text(path: str, data: bytes) -> list[str] | None:
    if len(data) > LARGE or b"\0" in data:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    if path.endswith(".json"):
        try:
            text = json.dumps(json.loads(text), indent=1, ensure_ascii=False)
        except (ValueError, RecursionError):
            pass
    return text.splitlines()


def _size(data: bytes) -> str:
    return f"{len(data):,} bytes".replace(",", " ")


def _cut(lines: Sequence[str], most: int) -> list[str]:
    shown = [line if len(line) <= WIDE else line[:WIDE] + "…" for line in lines[:most]]
    return [*shown, f"… {len(lines) - most} more lines"] if len(lines) > most else shown

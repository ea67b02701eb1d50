"""A region at the bottom of a terminal that is drawn again and again, below lines that stay.

Between two drawings the cursor stands at the region's first column. So a terminal that folds lines when its window
becomes narrower takes the cursor with them, what it echoes of Ctrl-C cannot fold a line, and clearing from the cursor
down leaves nothing behind.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TextIO

CLEAR = "\r\x1b[J"
"""To the first column, and clear all from there to the end of the screen."""


def is_screen(out: TextIO) -> bool:
    """Whether `out` is a terminal that can move its cursor."""
    return out.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb")


def size(out: TextIO) -> tuple[int, int]:
    """(columns, rows) of a terminal; 80 × 24 where it does not know."""
    try:
        columns, rows = os.get_terminal_size(out.fileno())
    except (OSError, ValueError):
        columns = rows = 0
    return columns or 80, rows or 24


def width(text: str) -> int:
    """The columns that a text takes: wide characters two, combining ones none."""
    return len(text) if text.isascii() else sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clip(text: str, columns: int) -> str:
    """`text` in at most so many columns, with … for what is cut off."""
    if width(text) <= columns:
        return text
    taken, kept = 0, 0
    for character in text:
        taken += _columns(character)
        if taken > columns - 1:
            break
        kept += 1
    return text[:kept] + "…" if columns > 0 else ""


def drawing(lines: Iterable[str], region: Sequence[str]) -> str:
    """What to write so that `lines` scroll away and `region` is below them; the cursor is in the region's corner."""
    up = f"\x1b[{len(region) - 1}A" if len(region) > 1 else ""
    return CLEAR + "".join(f"{line}\n" for line in lines) + "\n".join(region) + up + ("\r" if region else "")

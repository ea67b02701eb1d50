"""Times and sizes as a person reads them."""

from __future__ import annotations


def in_units(seconds: float) -> str:
    """A time as it was measured: `1.2 s`, `4 min 5 s`, `3 h 20 min`."""
    return f"{seconds:.1f} s" if seconds < 60 else in_whole_units(seconds)


def in_whole_units(seconds: float) -> str:
    """A time that goes on: `12 s`, `4 min 5 s`, `3 h 20 min`."""
    if seconds < 60:
        return f"{int(seconds)} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def about(seconds: float) -> str:
    """A time that is guessed, no more exactly than guesses are: `1.2 s`, `40 s`, `4 min`, `3 h 20 min`, `61 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 10 and minutes else f"{round(seconds / 3600)} h"


def in_bytes(size: float) -> str:
    """A number of bytes as a person reads it: 812 B, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"

"""Exceptions of a user's code as three-part errors, with the user's own frames only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from labmake.errors import RuleError, Where

if TYPE_CHECKING:
    import traceback

FRAMES = 6
"""Frames of a user's code that are shown: more are those of a recursion, of which the ends tell all."""


def broken(error: BaseException, what: str, where: Where) -> RuleError:
    """An exception in a user's rule file or plan as a three-part error with the user's own frames."""
    import traceback

    frames = own_frames(error)
    root = _root(frames, where)
    places = [Where(frame.filename.removeprefix(root), frame.lineno or 0) for frame in frames]
    lines = [f"{place} in {frame.name}\n    {frame.line}" for place, frame in zip(places, frames, strict=True)]
    text = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, SyntaxError) and error.filename:
        places.append(Where(error.filename.removeprefix(root), error.lineno or 0))
        text = "\n".join([f"SyntaxError: {error.msg}", *text.split("\n")[1:-1]])
    last = places[-1] if places else where
    if len(lines) > FRAMES:
        half = FRAMES // 2
        lines[half:-half] = [f"… {len(lines) - 2 * half} more"]
    facts: list[tuple[str, object]] = [("error", text)]
    if lines:
        facts.append(("called", "\n".join(lines)))
    return RuleError(what, facts, [f"correct {last}"], where if where.line else last)


def own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of an exception that are not labmake's: those of the user's files and of what these call."""
    import traceback

    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    found = traceback.extract_tb(error.__traceback__)
    return [frame for frame in found if not frame.filename.startswith((own, "<frozen"))]


def line_in(error: BaseException, where: Where) -> Where:
    """The last line of the file of `where` that led to an exception."""
    lines = [frame.lineno or 0 for frame in own_frames(error) if frame.filename.endswith(os.sep + where.file)]
    return Where(where.file, lines[-1]) if lines else where


def _root(frames: Sequence[traceback.FrameSummary], where: Where) -> str:
    """The project's folder with a closing slash, as the rule file's absolute name tells it, or ""."""
    names = [frame.filename for frame in frames if frame.filename.endswith(os.sep + where.file)]
    return names[0][: -len(where.file)] if names else ""

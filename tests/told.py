"""What a user is told: the errors of a command, each checked to have its three parts."""

from __future__ import annotations

import re

from space import Space


def told(space: Space, *words: str, code: int = 2, command: tuple[str, ...] = ("build",)) -> str:
    """Run a command that shall fail with exit code `code` and an error that has all `words`; returns the errors.

    Every error says what happened and, behind an arrow, what to do; no traceback of labmake is ever shown.
    """
    done = space.run(*command, code=code)
    errors = re.findall(r"^error: .*\n(?:[ ].*\n|\n(?=[ ]))*", done.text, re.MULTILINE)
    assert errors, done.text
    for error in errors:
        assert re.search(r"^  → .", error, re.MULTILINE), f"nothing to do: {error}"
    text = "".join(errors)
    for word in words:
        assert word in text, f"{word!r} is not in:\n{done.text}"
    return text

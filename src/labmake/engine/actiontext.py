"""The text of an action, read: the one place that knows its lines (engine.actions writes them).

A line is a word and what it says. Words that are not known here are kept as they are, so that a text of another version
can still be compared with one of this.
"""

from __future__ import annotations

import json

Lines = dict[tuple[str, str], str]
"""(word, subject) → value; the subject is "" for a word that is there once."""

_NAMED = ("parameter", "wildcard", "code", "output")
_DECODER = json.JSONDecoder()


def lines_of(text: str) -> Lines:
    """An action's text as (word, subject) → value. Raises ValueError if it is none."""
    found: Lines = {}
    for line in text.splitlines()[1:]:
        word, _, rest = line.partition(" ")
        subject, value = "", rest
        if word in _NAMED:
            subject, end = _DECODER.raw_decode(rest)
            value = rest[end:].strip()
        elif word == "input":
            name, end = _DECODER.raw_decode(rest)
            _, length = _DECODER.raw_decode(rest[end:].lstrip())
            subject, value = _input(name, rest[end:].lstrip()[length:].strip())
        found[word, str(subject)] = value
    return found


def _input(name: str, value: str) -> tuple[str, str]:
    """`["3"] "data/fits/3.json" <digest>` or `10000 items <digest>` as subject and digest."""
    head, _, digest = value.rpartition(" ")
    if head.endswith("items"):
        return f"{name} (a list)", f"{head}, {digest}"
    _, end = _DECODER.raw_decode(head)
    return f"{name}: {json.loads(head[end:].strip())}", digest


def environment_in(text: str) -> str:
    """What an action's text says of its environment; "" if nothing."""
    return "\n".join(line.partition(" ")[2] for line in text.splitlines() if _is_environment(line))


def without_environment(text: str) -> str:
    """An action's text without its environment: equal for one step under different software."""
    return "\n".join(line for line in text.splitlines() if not _is_environment(line))


def _is_environment(line: str) -> bool:
    return line.startswith("environment ")

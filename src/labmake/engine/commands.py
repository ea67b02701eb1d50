"""Shell commands: values filled into `{name}`, quoted for the place they stand in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from labmake.errors import RuleError
from labmake.model import Json, canonical

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_HOLE = re.compile(r"(?<!\$)\{\{(" + _NAME + r"(?:\.list)?)\}\}|(?<!\$)\{(" + _NAME + r")(\.list)?\}")


@lru_cache(maxsize=1024)
def _pieces(command: str) -> tuple[tuple[str, str, str, str, str], ...]:
    """A command cut at its holes: (text before, literal in braces, name, ".list" or "", quote that is open there).

    The last piece has no hole. A quote depends on the text alone, since values are quoted.
    """
    pieces: list[tuple[str, str, str, str, str]] = []
    quote, end = "", 0
    for match in _HOLE.finditer(command):
        between = command[end : match.start()]
        quote = _quote_state(between, quote)
        end = match.end()
        pieces.append((between, match[1] or "", match[2] or "", match[3] or "", quote))
    return (*pieces, (command[end:], "", "", "", ""))


def fill(command: str, values: Mapping[str, str | Sequence[str]], lists: Mapping[str, str]) -> str:
    """The command with every `{name}` replaced by its value, quoted for the place it stands in.

    A list becomes quoted words. `lists` maps a name to the file that holds its paths, one a line. Raises RuleError
    for an unknown name.
    """
    out: list[str] = []
    for between, literal, name, is_list, quote in _pieces(command):
        out.append(between)
        if literal:
            out.append("{" + literal + "}")
        elif name:
            if name not in values or (is_list and name not in lists):
                raise _no_such_name(command, name + is_list, values)
            value = lists[name] if is_list else values[name]
            words = [value] if isinstance(value, str) else list(value)
            out.append(" ".join(_quoted(word, quote) for word in words))
    return "".join(out)


def names_in(command: str) -> frozenset[str]:
    """The names that a command asks for."""
    return frozenset(name for _, _, name, _, _ in _pieces(command) if name)


def _no_such_name(command: str, name: str, values: Iterable[str]) -> RuleError:
    return RuleError(
        f"the command asks for {{{name}}}, which the rule does not have",
        [("command", command), ("has", ", ".join(sorted(values)))],
        [
            f"name an input, output, parameter or wildcard {name}, or write {{{{{name}}}}} for the literal text",
            *(["{batch} belongs to a rule with batch=500 or the like"] if name == "batch" else []),
        ],
    )


def check_names(command: str, names: Iterable[str]) -> None:
    """Raises RuleError if a command asks for a name that is not among `names`."""
    known = frozenset(names)
    for _, _, name, is_list, _ in _pieces(command):
        if name and name not in known:
            raise _no_such_name(command, name + is_list, known)


def _quoted(word: str, quote: str) -> str:
    if quote == "'":
        return word.replace("'", "'\\''")
    if quote == '"':
        return re.sub(r'([\\"$`])', r"\\\1", word)
    return shlex.quote(word)


def _quote_state(text: str, quote: str) -> str:
    """The quote that is open after `text`, if `quote` was open before it."""
    index = 0
    while index < len(text):
        char = text[index]
        if char == "\\" and quote != "'":
            index += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        index += 1
    return quote


def flat(role: Any) -> list[str]:
    """The places in an input, without those of members that failed."""
    if isinstance(role, str):
        return [role]
    if isinstance(role, dict):
        return [place for place in role.values() if place is not None]
    paths = [item["path"] if isinstance(item, dict) else item for item in role or ()]
    return [place for place in paths if place is not None]


def as_word(value: Json) -> str:
    """A parameter as the text that a command line gets: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else canonical(value)

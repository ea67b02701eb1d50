"""Patterns of paths: `{name}` matches anything but a slash, `{name:regex}` what the expression matches."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from functools import lru_cache

from labmake.errors import RuleError
from labmake.frozen import frozen

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@lru_cache(maxsize=4096)
def parse(pattern: str) -> tuple[tuple[str, str], ...]:
    """The pieces of a pattern: ("", literal) and (name, regex), in order. Raises RuleError for a malformed wildcard."""
    pieces: list[tuple[str, str]] = []
    start = index = 0
    while (index := pattern.find("{", index)) >= 0:
        end = _closing(pattern, index)
        name, _, regex = pattern[index + 1 : end].partition(":")
        if not _NAME.fullmatch(name):
            raise RuleError(
                "a wildcard is written {name} or {name:regex}",
                [("pattern", pattern), ("found", pattern[index : end + 1])],
                ["a name is letters, digits and _, and begins with no digit"],
            )
        if start < index:
            pieces.append(("", pattern[start:index]))
        pieces.append((name, regex))
        start = index = end + 1
    if start < len(pattern):
        pieces.append(("", pattern[start:]))
    return tuple(pieces)


def _closing(pattern: str, start: int) -> int:
    depth = 0
    for index in range(start, len(pattern)):
        depth += (pattern[index] == "{") - (pattern[index] == "}")
        if depth == 0:
            return index
    raise RuleError("a wildcard is not closed", [("pattern", pattern)], ["write {name} or {name:regex}"])


def wildcards(pattern: str) -> list[str]:
    """The names of a pattern's wildcards, in order, each once."""
    return list(dict.fromkeys(name for name, _ in parse(pattern) if name)) if "{" in pattern else []


def literal_length(pattern: str) -> int:
    """How many characters of a pattern are literal; of two matching rules the one with more wins."""
    return sum(len(text) for name, text in parse(pattern) if not name)


def fill(pattern: str, binding: Mapping[str, str]) -> str:
    """The pattern with its wildcards replaced; a wildcard that `binding` lacks stays as it is."""
    if "{" not in pattern:
        return pattern
    return "".join(
        text if not name else binding.get(name, f"{{{name}:{text}}}" if text else f"{{{name}}}")
        for name, text in parse(pattern)
    )


def fill_text(text: str, binding: Mapping[str, str]) -> str:
    """`text`, which is no pattern, with each `{name}` of `binding` replaced and every other brace as it is."""
    if "{" not in text:
        return text
    return re.sub(r"\{([A-Za-z_][A-Za-z0-9_]*)\}", lambda m: binding.get(m[1], m[0]), text)


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern as an expression for whole paths; a folder pattern also matches paths inside it, as group `inside`.

    Raises RuleError for an expression that is none.
    """
    seen: dict[str, str] = {}
    out: list[str] = []
    for name, text in parse(pattern):
        if not name:
            out.append(re.escape(text))
        elif name in seen:
            out.append(f"(?P=w_{name})")
        else:
            seen[name] = text
            out.append(f"(?P<w_{name}>{text or '[^/]+'})")
    if pattern.endswith("/"):
        out.append("(?P<inside>.*)")
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error as error:
        raise RuleError(
            "a wildcard's expression is malformed",
            [("pattern", pattern), ("reason", error.msg)],
            ["what stands after the colon is a regular expression of Python's re, such as {n:[0-9]+}"],
        ) from None


@frozen
class Matched:
    """The wildcards' values, and the path inside when the pattern is a folder."""

    binding: Mapping[str, str]
    inside: str = ""


def match(pattern: str, path: str) -> Matched | None:
    """How `path` matches; a value is never empty and has no slash."""
    found = compiled(pattern).fullmatch(path)
    if found is None:
        return None
    groups = found.groupdict()
    inside = groups.pop("inside", "") or ""
    binding = {name[2:]: value for name, value in groups.items()}
    if any(not value or "/" in value for value in binding.values()):
        return None
    return Matched(binding, inside)


def glob_expression(pattern: str) -> str:
    """A glob as an expression: `*` and `?` match within a name, `**/` any folders, `[…]` one character."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    table = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        table.get(p) or (fnmatch.translate(p)[4:-3] if p.startswith("[") and p.endswith("]") else re.escape(p))
        for p in pieces
    )

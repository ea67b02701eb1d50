"""Settings: what steps book and how often they are tried, changed for one build (`build --set 'models/*' memory=80G`).

They are put over a rule's own options when its step is queued, after its action is composed: so no digest knows of
them, and nothing reruns because of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from functools import lru_cache
from typing import Any

from labmake.engine.patterns import glob_expression, match, parse
from labmake.engine.rulebook import EXP, Match
from labmake.frozen import frozen
from labmake.layout import short
from labmake.model import Rule

SETTABLE = frozenset("memory memory_max cpus gpus gpu_memory disk time tokens retries executor".split())
"""The reserved words that are no part of an action."""


@frozen
class Setting:
    """Options for the targets whose short path, or path from the project's root, matches a pattern (as glob's)."""

    pattern: str
    values: Mapping[str, Any]

    def fits(self, path: str, experiment: str) -> bool:
        """Whether it is meant for a target."""
        expression = _expression(self.pattern)
        return any(expression.fullmatch(name.rstrip("/")) for name in (path, short(path, experiment)))

    def may_fit(self, rule: Rule, experiment: str) -> bool:
        """Whether it can be meant for any target of a rule."""
        mine = self.pattern.rstrip("/")
        literal = not re.search(r"[*?\[]", mine)
        for output in rule.outputs.values():
            whole = output.replace(f"{{{EXP}}}", experiment) if experiment else output
            names = (whole.rstrip("/"), short(whole, experiment).rstrip("/"))
            for name in names:
                if match(name, mine) if literal else _meet(_tokens_of_glob(mine), _tokens_of_pattern(name)):
                    return True
        return False


@frozen
class Settings:
    """The settings of a build, a later one wins; `used` are the patterns of those that a step was run with."""

    all: tuple[Setting, ...] = ()
    used: set[str] = field(default_factory=set)

    def over(self, options: Mapping[str, Any], of: Match) -> Mapping[str, Any]:
        """The options of a step that is now to run, with what is set for it."""
        for setting in self.all:
            if any(setting.fits(path, of.experiment) for path in of.outputs.values()):
                self.used.add(setting.pattern)
                options = {**options, **setting.values}
        return options

    @property
    def unused(self) -> list[str]:
        """The patterns with which no step was run."""
        return [setting.pattern for setting in self.all if setting.pattern not in self.used]


@lru_cache(maxsize=256)
def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(glob_expression(pattern.rstrip("/")), re.DOTALL)


# Can a glob and a rule's pattern have a path in common? -----------------------------------------------------------

_ANY, _ANYWHERE, _ONE = "*", "**", "?"
"""Tokens for any text without a slash, any text, and one character; other tokens are ("", character)."""

_Tokens = tuple[tuple[str, str], ...]


def _tokens_of_glob(pattern: str) -> _Tokens:
    pieces = re.split(r"(\*\*/?|\*|\?|\[[^\]]+\])", pattern)
    return tuple(token for piece in pieces for token in _of_piece(piece))


def _of_piece(piece: str) -> Iterable[tuple[str, str]]:
    if piece.startswith("**"):
        return [(_ANYWHERE, "")]
    if piece == "*":
        return [(_ANY, "")]
    if piece == "?" or (piece.startswith("[") and piece.endswith("]")):
        return [(_ONE, "")]
    return [("", character) for character in piece]


def _tokens_of_pattern(pattern: str) -> _Tokens:
    """Of a rule's pattern: what an expression takes is not asked, so it may say yes where there is none."""
    return tuple(t for name, text in parse(pattern) for t in ([(_ANY, "")] if name else [("", c) for c in text]))


def _meet(one: _Tokens, other: _Tokens) -> bool:
    """Whether some text fits both."""
    waiting, seen = [(0, 0)], {(0, 0)}
    while waiting:
        at, to = waiting.pop()
        if at == len(one) and to == len(other):
            return True
        for step in _steps(one[at] if at < len(one) else None, other[to] if to < len(other) else None):
            place = (at + step[0], to + step[1])
            if place not in seen:
                seen.add(place)
                waiting.append(place)
    return False


def _steps(mine: tuple[str, str] | None, its: tuple[str, str] | None) -> Iterable[tuple[int, int]]:
    """How far two patterns may go on where one has the token `mine` and the other `its`."""
    many = (_ANY, _ANYWHERE)
    if mine is not None and mine[0] in many:
        yield 1, 0
    if its is not None and its[0] in many:
        yield 0, 1
    if mine is None or its is None:
        return
    if mine[0] in many and its[0] not in many and (mine[0] == _ANYWHERE or its[1] != "/"):
        yield 0, 1
    elif its[0] in many and mine[0] not in many and (its[0] == _ANYWHERE or mine[1] != "/"):
        yield 1, 0
    elif (mine == its and not mine[0]) or (_ONE in (mine[0], its[0]) and "/" not in (mine[1], its[1])):
        yield 1, 1

"""Why a target is made again: the differences between two actions, each as a reason with old and new value."""

from __future__ import annotations

import json
from collections.abc import Callable

from labmake.engine.actiontext import lines_of
from labmake.engine.services import Services
from labmake.errors import StoreError
from labmake.frozen import frozen
from labmake.model import Action, Digest, Fact

SHOWN = 12
"""Hexadecimal digits of a digest that are shown."""


@frozen
class Reason:
    """`kind` (input, code, parameter, environment, …), what it is about, its old and its new value ("" for none)."""

    kind: str
    subject: str
    old: str = ""
    new: str = ""


def differences(services: Services, fact: Fact, action: Action) -> list[Reason]:
    """How an action differs from the one that made what this worktree has. Empty if they are the same.

    Without the old action's text (the store was emptied) one reason says so.
    """
    if fact.action == action.digest:
        return []
    try:
        before = services.blobs.read(fact.action).decode()
        return compare(services, before, action.text, lambda place: _changed_line(services, fact, action, place))
    except (StoreError, ValueError):
        return [Reason("action", "made by an action that the store no longer has")]


def compare(services: Services, before: str, after: str, code: Callable[[str], str]) -> list[Reason]:
    """How the texts of two actions differ; `code` tells what to call a code file that changed, by its place.

    Raises ValueError if one is no action's text.
    """
    old, new = lines_of(before), lines_of(after)
    reasons: list[Reason] = []
    for key in dict.fromkeys([*old, *new]):
        if old.get(key, "") != new.get(key, ""):
            reasons += _reasons(services, code, key, old.get(key, ""), new.get(key, ""))
    return reasons


def told(reason: Reason) -> str:
    """What a reason is about and how it changed, in one line: `numpy 2.1.0 → 2.1.1`, `ruff 0.6 installed`."""
    if reason.kind == "environment" and reason.subject:
        if reason.old and reason.new:
            return f"{reason.subject} {reason.old} → {reason.new}"
        return f"{reason.subject} {reason.new} installed" if reason.new else f"{reason.subject} {reason.old} removed"
    if not reason.old and not reason.new:
        return reason.subject
    change = f"{reason.old or '(nothing)'} → {reason.new or '(nothing)'}"
    return f"{reason.subject}  {change}" if reason.subject else change


def _reasons(services: Services, code: Callable[[str], str], key: tuple[str, str], old: str, new: str) -> list[Reason]:
    word, subject = key
    if word == "environment":
        return _environment(services, old, new)
    if word == "code":
        return [Reason("code", code(subject), old[:SHOWN], new[:SHOWN])]
    if word == "input" and not old.endswith("items"):
        return [Reason("input", subject, _short(old), _short(new))]
    return [Reason(word, subject, old, new)]


def _short(digest: str) -> str:
    return digest[:SHOWN] if len(digest) > 64 and digest[64:65] == "-" else digest


def _environment(services: Services, old: Digest, new: Digest) -> list[Reason]:
    """The lines of two environments that differ: `numpy 2.1.0 → 2.1.1`."""
    try:
        before, after = (_words(services.blobs.read(digest).decode()) for digest in (old, new))
    except (StoreError, ValueError):
        return [Reason("environment", "", _short(old), _short(new))]
    return [
        Reason("environment", name, before.get(name, ""), after.get(name, ""))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _words(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition(" ") for line in text.splitlines())}


def _changed_line(services: Services, fact: Fact, action: Action, place: str) -> str:
    """`file:line` of the first line of a code file that changed; the file alone if its old text is gone."""
    import difflib  # of use to few commands

    old = _snapshot(services, fact).get(place)
    new = dict(action.code).get(place)
    if old is None or new is None:
        return place
    try:
        before, after = (services.blobs.read(digest).decode(errors="replace").splitlines() for digest in (old, new))
    except StoreError:
        return place
    for tag, _, _, start, _ in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            return f"{place}:{start + 1}"
    return place


def _snapshot(services: Services, fact: Fact) -> dict[str, Digest]:
    try:
        text = services.blobs.read(fact.snapshot).decode()
        return dict(json.loads(line) for line in text.splitlines())
    except (StoreError, ValueError):
        return {}

"""Why a target is made again: the differences between two actions, each as a reason with old and new value."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from labmake.engine.actiontext import lines_of
from labmake.engine.questions import loaded_of
from labmake.engine.services import Services
from labmake.engine.why_code import code_changes
from labmake.errors import StoreError
from labmake.frozen import frozen
from labmake.model import Action, Digest, Fact

SHOWN = 12
"""Hexadecimal digits of a digest that are shown."""


@frozen
class Reason:
    """`kind` (input, code, parameter, environment, …), what it is about, its old and its new value ("" for none), and
    what happened in words where values would say nothing."""

    kind: str
    subject: str
    old: str = ""
    new: str = ""
    words: str = ""


def differences(services: Services, fact: Fact, action: Action) -> list[Reason]:
    """How an action differs from the one that made what this worktree has. Empty if they are the same.

    Without the old action's text (the store was emptied) one reason says so.
    """
    if fact.action == action.digest:
        return _found_in_the_run(services, fact)

    def code(place: str, old: str, new: str) -> list[Reason]:
        changes = code_changes(services, fact, action, place, old, new)
        return [Reason("code", at, *(("", "") if what else (old[:SHOWN], new[:SHOWN])), what) for at, what in changes]

    try:
        before = services.blobs.read(fact.action).decode()
        reasons = compare(services, before, action.text, code)
    except (StoreError, ValueError):
        return [Reason("action", "made by an action that the store no longer has")]
    return [*reasons, *(one for one in _found_in_the_run(services, fact) if one not in reasons)]


Code = Callable[[str, str, str], list[Reason]]
"""What to tell of a code file that changed: by its place, its old and its new identity."""


def compare(services: Services, before: str, after: str, code: Code) -> list[Reason]:
    """How the texts of two actions differ.

    Raises ValueError if one is no action's text.
    """
    old, new = lines_of(before), lines_of(after)
    reasons: list[Reason] = []
    for key in dict.fromkeys([*old, *new]):
        if old.get(key, "") != new.get(key, ""):
            reasons += _reasons(services, code, key, old.get(key, ""), new.get(key, ""))
    return reasons


def _found_in_the_run(services: Services, fact: Fact) -> list[Reason]:
    """The distributions that a step imported, though its code does not name them, and that are others now."""
    before = loaded_of(fact)
    return versions(before, services.environments.versions(before))


def told(reason: Reason) -> str:
    """What a reason is about and how it changed, in one line: `numpy 2.1.0 → 2.1.1`, `ruff 0.6 installed`."""
    if reason.kind == "environment" and reason.subject:
        if reason.old and reason.new:
            return f"{reason.subject} {reason.old} → {reason.new}"
        return f"{reason.subject} {reason.new} installed" if reason.new else f"{reason.subject} {reason.old} removed"
    if not reason.old and not reason.new:
        return f"{reason.subject} {reason.words}".rstrip()
    change = f"{reason.old or '(nothing)'} → {reason.new or '(nothing)'}"
    return f"{reason.subject}  {change}" if reason.subject else change


def _reasons(services: Services, code: Code, key: tuple[str, str], old: str, new: str) -> list[Reason]:
    word, subject = key
    if word == "environment":
        return _environment(services, old, new)
    if word == "code":
        return code(subject, old, new)
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
    return versions(before, after)


def versions(before: Mapping[str, str], after: Mapping[str, str]) -> list[Reason]:
    """What differs between two states of software, "" being not there; a hash is told only if nothing else differs."""
    reasons = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, ""), after.get(name, "")
        if old == new:
            continue
        plain = old.partition(" (")[0], new.partition(" (")[0]
        reasons.append(Reason("environment", name, *(plain if plain[0] != plain[1] else (old, new))))
    return reasons


def _words(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition(" ") for line in text.splitlines())}

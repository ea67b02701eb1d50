"""Which definition of a code file changed, on which line, and through what a step reaches it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from labmake.engine.questions import code_closure
from labmake.engine.services import Services
from labmake.environment.code_functions import Explained
from labmake.errors import LabmakeError, StoreError
from labmake.layout import Places, experiment_of
from labmake.model import Action, Digest, Fact

SHOWN = 6
"""How many definitions of one file are named."""

Change = tuple[str, str]
"""`file:line`, and what happened there ("" if no more is known than that the file changed)."""


def code_changes(services: Services, fact: Fact, action: Action, place: str, old: str, new: str) -> list[Change]:
    """What changed in the code file at `place` of the step folder, whose identity was `old` and is `new`."""
    before, after = _snapshot(services, fact), dict(action.code)
    texts = [_text(services, code.get(place)) for code in (before, after)]
    if action.recipe.kind == "function" and new:
        told = _of_function(services, fact, action, place, old, new, texts)
        if told:
            return told
    line = _first_line(texts[0], texts[1], 1, len(texts[1] or ()))
    return [(f"{place}:{line}" if line else place, "" if new else "no longer counts")]


def _of_function(
    services: Services, fact: Fact, action: Action, place: str, old: str, new: str, texts: Sequence[list[str] | None]
) -> list[Change]:
    """The changes by definition; none if the text of an identity is gone, or was no function's."""
    rows = [_rows(services, digest) if digest else [] for digest in (old, new)]
    explained = _explained(services, fact, action, place)
    if None in rows or explained is None:
        return []
    was, now = ({label: [row for row in side or () if row[0] == label] for label, *_ in side or ()} for side in rows)
    if "*" in now:
        line = _first_line(texts[0], texts[1], 1, len(texts[1] or ()))
        return [(f"{place}:{line}" if line else place, f"changed; all of the file counts: {explained['*'].whole}")]
    changes: list[tuple[int, str]] = []
    for label, found in now.items():
        if [row[1:3] for row in found] != [row[1:3] for row in was.get(label, [])] and label in explained:
            there = explained[label]
            line = _first_line(texts[0], texts[1], there.first, there.last) or there.first
            word = "changed" if label in was else "is reached now" if "*" not in was else "counts by itself now"
            changes.append((line, f"{label} {word}{_way(there, label, action.recipe.function)}"))
    told = [(f"{place}:{line}", words) for line, words in sorted(changes)]
    gone = [(place, f"{label} is no longer reached") for label in was if label not in now and label != "*"]
    more = len(told) + len(gone) - SHOWN
    told = [*told, *gone][:SHOWN]
    if more > 0:
        told.append((place, f"and {more} more"))
    return told or [(place, "the order of its statements changed")]


def _way(there: Explained, label: str, function: str) -> str:
    """Through what a definition is reached, as the end of a sentence."""
    first = function.partition(".")[0]
    if there.path == [label]:
        return "" if label == first else ", which runs when the file is imported"
    through = [step for step in there.path[1:-1] if not step.startswith(("import ", "from "))]
    words = f", reached from {there.path[0]}"
    return words + (f" through {', '.join(through)}" if through else "")


def _explained(services: Services, fact: Fact, action: Action, place: str) -> Mapping[str, Explained] | None:
    _, what, function, home, _, _, *pickled = json.loads(action.asked)
    places = Places(experiment_of(fact.node) or "")
    try:
        closure = code_closure(services, action.asked)
        path = next(file.path for file in closure.files if places.place(file.path) == place)
        file = services.code.find_recipe_file(what, home)
        return services.code.explained(file, home, function, bool(pickled), path)
    except (LabmakeError, StopIteration):
        return None


def _rows(services: Services, digest: Digest) -> list[list[Any]] | None:
    """The rows of an identity (see environment.code_reach); None if they are gone, or it is the identity of a file."""
    try:
        rows = [json.loads(line) for line in services.blobs.read(digest).decode().splitlines()]
    except (StoreError, ValueError):
        return None
    return rows if all(isinstance(row, list) and row for row in rows) else None


def _first_line(old: list[str] | None, new: list[str] | None, first: int, last: int) -> int:
    """The first line from `first` to `last` (1 based) that changed, comments aside; 0 if that is unknown."""
    import difflib  # of use to few commands

    if old is None or new is None:
        return 0
    found = 0
    for tag, _, _, start, end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal" or end < first - 1 or start >= last:
            continue
        for line in range(max(start, first - 1), max(min(end, last), start + 1)):
            found = found or line + 1
            if tag == "delete" or (new[line].strip() and not new[line].lstrip().startswith("#")):
                return line + 1
    return found


def _text(services: Services, digest: Digest | None) -> list[str] | None:
    try:
        return None if digest is None else services.blobs.read(digest).decode(errors="replace").splitlines()
    except StoreError:
        return None


def _snapshot(services: Services, fact: Fact) -> dict[str, Digest]:
    try:
        text = services.blobs.read(fact.snapshot).decode()
        return dict(json.loads(line) for line in text.splitlines())
    except (StoreError, ValueError):
        return {}

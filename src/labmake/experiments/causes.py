"""Why a target's content changed between two states: what differs in its action, back to where the change began."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from labmake.data.slices import split_slice
from labmake.engine.nodes import Made
from labmake.engine.questions import loaded_of
from labmake.engine.why import Reason, compare, versions
from labmake.errors import LabmakeError, StoreError
from labmake.experiments.blame import Change
from labmake.experiments.differing import entries_between, lines_between
from labmake.experiments.history import History
from labmake.experiments.recalled import ABSENT, State, moved_to
from labmake.frozen import frozen
from labmake.layout import GENERATED, script_folder
from labmake.model import Digest, Key
from labmake.store.digest import is_folder, parse_manifest

MOST = 12
"""Targets on the way back to the cause that are told."""


@frozen
class Told:
    """A reason with the lines that differ in the file it is about, if it is about one."""

    reason: Reason
    lines: tuple[str, ...] = ()


@frozen
class Cause:
    """A target that came out otherwise: its digests ("" for none), and what differs in the actions that made it."""

    target: str
    before: Digest
    after: Digest
    told: tuple[Told, ...]


def causes(history: History, change: Change) -> list[Cause]:
    """The target that changed, and before it in its making those that changed too, the nearest first.

    Empty if one of the states has no such target.
    """
    before, after = change.before, change.after
    if before is None or ABSENT in (before.digest, after.digest):
        return []
    node = after.services.rulebook.find(after.target).node
    found: list[Cause] = []
    waiting, seen = [node], {node}
    while waiting and len(found) < MOST:
        node = waiting.pop(0)
        cause, further = _cause(history, before, after, node)
        found.append(cause)
        waiting += [one for one in further if one not in seen]
        seen.update(further)
    return found


def _cause(history: History, before: State, after: State, node: str) -> tuple[Cause, list[str]]:
    """One node's part of it, and the nodes among its inputs that came out otherwise."""
    older = moved_to(node, after.experiment, before.experiment)
    old, new = before.made.get(older), after.made.get(node)
    target, digests = _changed_output(node, before, after, old, new)
    if old is None or new is None:
        kind = "is made by another rule" if old is not None else "was not needed before"
        return Cause(target, *digests, (Told(Reason("target", kind)),)), []
    if not (before.text(older) and after.text(node)):
        reason = Reason("data", "what was brought in is another", digests[0][:12], digests[1][:12])
        return Cause(target, *digests, (Told(reason, tuple(_data_lines(after, old, new))),)), []
    return Cause(target, *digests, tuple(_told(history, before, after, older, node))), _upstream(
        before, after, old, new
    )


def _changed_output(
    node: str, before: State, after: State, old: Made | None, new: Made | None
) -> tuple[str, tuple[Digest, Digest]]:
    """Which of a node's targets changed first, with its digests."""
    paths = list(new.outputs if new is not None else {})
    asked = [path for path in paths if after.target == path or after.target.startswith(path)]
    for path in [*asked, *paths, node]:
        was = moved_to(path, after.experiment, before.experiment)
        pair = (old.outputs.get(was, "") if old else "", new.outputs.get(path, "") if new else "")
        if pair[0] != pair[1] or path == node:
            return path, pair
    raise AssertionError("a node is one of its own targets")


def _told(history: History, before: State, after: State, older: str, node: str) -> Iterator[Told]:
    services = after.services
    try:
        reasons = compare(services, before.text(older), after.text(node), _named)
    except ValueError:
        reasons = [Reason("action", "is written in a way that this version does not read")]
    loaded = [loaded_of(state.made[name].fact) for state, name in ((before, older), (after, node))]
    reasons += [one for one in versions(*loaded) if one not in reasons]
    if not reasons:
        yield Told(Reason("result", "the same action gave another result: its step is not repeatable"))
    for reason in reasons:
        if reason.kind == "code":
            yield Told(reason, tuple(_code_lines(before, after, older, node, reason.subject)))
        elif reason.kind == "input":
            yield Told(reason, tuple(_input_lines(history, before, after, older, node, reason)))
        else:
            yield Told(reason)


def _named(place: str, _: str, __: str) -> list[Reason]:
    return [Reason("code", place)]


def _code_lines(before: State, after: State, older: str, node: str, place: str) -> list[str]:
    """The lines of a code file that differ."""
    pair = [dict(state.services.actions[name].code).get(place, "") for state, name in ((before, older), (after, node))]
    data = [_read(after, digest) if digest else None for digest in pair]
    return lines_between(place, data[0], data[1]) if pair[0] != pair[1] else []


def _input_lines(history: History, before: State, after: State, older: str, node: str, reason: Reason) -> list[str]:
    """The lines of an input that differ, if it is a file of the project and not a result."""
    data = []
    for state, name in ((before, older), (after, node)):
        place = reason.subject.partition(": ")[2]
        file = next((one for one in state.services.actions[name].inputs if one.place == place and one.origin), None)
        if file is None or is_folder(file.digest):
            return []
        root = str(state.services.project.root) + "/"
        if not file.origin.startswith(root):
            return []
        data.append(history.content(state.commit, file.origin[len(root) :]))
    return lines_between(reason.subject, data[0], data[1])


def _data_lines(after: State, old: Made, new: Made) -> list[str]:
    """The lines in which the data of a source differ."""
    (was, *_), (now, *_) = old.outputs.values(), new.outputs.values()
    return content_lines(after, next(iter(new.outputs)), was, now)


def content_lines(state: State, path: str, before: Digest, after: Digest, most: int | None = None) -> list[str]:
    """How two results differ, from the store; [] if it no longer has one of them."""
    data = [_read(state, digest) for digest in (before, after)]
    if data[0] is None or data[1] is None:
        return []
    limit = {} if most is None else {"most": most}
    if is_folder(before) and is_folder(after):
        return entries_between(parse_manifest(data[0]), parse_manifest(data[1]), **limit)
    return lines_between(path, data[0], data[1], **limit)


def _read(state: State, digest: Digest) -> bytes | None:
    try:
        return state.services.blobs.read(digest)
    except StoreError:
        return None


# The way back ------------------------------------------------------------------------------------------------------


def _upstream(before: State, after: State, old: Made, new: Made) -> list[str]:
    """The nodes that made what a node asked for and that came out otherwise, in the order in which it asked."""
    was = {moved_key(key, before, after): digest for group in old.fact.groups for key, digest in group}
    found: dict[str, None] = {}
    for group in new.fact.groups:
        for key, digest in group:
            path = _result_in(key)
            if was.get(key) == digest or path is None:
                continue
            try:
                node = after.services.rulebook.find(path).node
            except LabmakeError:
                continue
            if node in after.made and _differs(before, after, node):
                found[node] = None
    return list(found)


def moved_key(key: Key, before: State, after: State) -> Key:
    """A key of the older state as the newer one calls it, if the experiment was renamed between them."""
    if before.experiment == after.experiment:
        return key
    for folder in (f"{GENERATED}/{before.experiment}/", f"{script_folder(before.experiment)}/"):
        key = key.replace(folder, folder.replace(f"/{before.experiment}/", f"/{after.experiment}/"))
    return key


def _differs(before: State, after: State, node: str) -> bool:
    old = before.made.get(moved_to(node, after.experiment, before.experiment))
    outputs: Mapping[str, Digest] = after.made[node].outputs
    if old is None:
        return True
    return [*old.outputs.values()] != [*outputs.values()]


def _result_in(key: Key) -> str | None:
    """The result that a question is about; None if it is about none."""
    path = key
    if key.startswith("?"):
        word, _, path = key[1:].partition(" ")
        if word == "try":
            return _result_in(path)
        if word not in ("keys", "list", "find"):
            return None
        path = path.partition("{")[0].rpartition("/")[0] + "/" if word == "find" else path
    cut = split_slice(path)
    path = cut[0] if cut is not None else path
    return path if path.startswith(f"{GENERATED}/") else None


def as_json(found: Sequence[Cause]) -> list[dict[str, object]]:
    """Causes as JSON values."""
    return [
        {
            "target": cause.target,
            "before": cause.before,
            "after": cause.after,
            "reasons": [
                {
                    "kind": one.reason.kind,
                    "subject": one.reason.subject,
                    "before": one.reason.old,
                    "after": one.reason.new,
                    "lines": list(one.lines),
                }
                for one in cause.told
            ],
        }
        for cause in found
    ]

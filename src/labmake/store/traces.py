"""Traces as the store keeps them: one JSON record each, and which of several stands for its action.

    {"action": digest, "outputs": {name: digest}, "seconds": 1.5, "peak": 12345, "log": digest, "when": 1.7e9,
     "added": nanoseconds since the epoch at which this store got it, "supersedes": true,
     "accepted": [digest of the action that made it, who, why, when, [what is different, …]],
     "loaded": {distribution: version}, "locks": {file: digest}}

`accepted` is there only if no step of this action ran, and somebody accepted another action's result (`labmake keep`);
`loaded` and `locks` are there unless they are empty.

Of the traces whose `loaded` is installed now, the first that this store got of an action stands, unless a later one
supersedes it: a step that is not repeatable must not change the results of others by being run elsewhere. The order is
that of `added`, not of `when`, so that a trace pulled from a remote is younger than the ones that were here, whenever
it was made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields

from labmake.frozen import frozen
from labmake.model import Digest, Trace, canonical

_MAPPINGS = ("loaded", "locks")
_FIELDS = tuple(field.name for field in fields(Trace) if field.name not in _MAPPINGS)


@frozen
class Accepted:
    """Who accepted the result of the action `source` as this one's, why, when (seconds since the epoch), and in what
    the two actions differ."""

    source: Digest
    who: str
    why: str
    when: float
    different: Sequence[str]


@frozen
class Kept:
    """A trace with when this store got it (nanoseconds) and whether it supersedes the ones before."""

    trace: Trace
    added: int
    supersedes: bool
    accepted: Accepted | None = None


def render_trace(kept: Kept) -> bytes:
    """The payload of a trace's record."""
    value = {name: getattr(kept.trace, name) for name in _FIELDS}
    value["outputs"] = dict(kept.trace.outputs)
    value |= {"added": kept.added, "supersedes": kept.supersedes}
    value |= {name: dict(told) for name in _MAPPINGS if (told := getattr(kept.trace, name))}
    if kept.accepted is not None:
        value["accepted"] = [getattr(kept.accepted, field.name) for field in fields(Accepted)]
    return canonical(value).encode()


def parse_trace(payload: bytes) -> Kept | None:
    """The trace of a record; None for one of another version, which counts as missing."""
    try:
        value = json.loads(payload)
        plain = {name: value[name] for name in _FIELDS}
        trace = Trace(**plain, loaded=dict(value.get("loaded", {})), locks=dict(value.get("locks", {})))
        accepted = Accepted(*value["accepted"]) if "accepted" in value else None
        return Kept(trace, int(value["added"]), bool(value["supersedes"]), accepted)
    except (ValueError, KeyError, TypeError):
        return None


def in_order(kept: Iterable[Kept]) -> list[Kept]:
    """The traces of one action, the oldest first."""
    return sorted(kept, key=lambda one: one.added)


def standing(kept: list[Kept]) -> Kept | None:
    """Which of these traces, in order, stands: the last that supersedes, else the first."""
    return next((one for one in reversed(kept) if one.supersedes), kept[0] if kept else None)

"""What a project's targets were, from traces alone: rules are planned and decided, nothing runs, nothing is placed.

The project may be any state of the files, such as a commit's. Of a source that lies elsewhere the pin says what it was
then, not what lies at its address now.

A step is known by its action, and the software of then is not the software of now: if no trace has exactly the action,
those count whose text is the same but for the environment (see Memory.find for which of several).
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from labmake.engine import pins
from labmake.engine.actiontext import environment_in, without_environment
from labmake.engine.fetching import datum, is_web
from labmake.engine.nodes import Asking, Decided, Made, WouldRun, answered, decide
from labmake.engine.plan import Answer, Failed, Unknown
from labmake.engine.questions import installed_key
from labmake.engine.rulebook import Match
from labmake.engine.services import Services
from labmake.engine.sourcing import locate
from labmake.errors import StoreError
from labmake.model import Action, Digest, Fact, Trace, canonical, digest_of
from labmake.store.blobs import Blobs, Counts
from labmake.store.digest import Entry, hex_of, parse_manifest, render_manifest


@dataclass(frozen=True)
class Found:
    """A trace with the text of its action, which may differ from the one that was asked for in its environment."""

    trace: Trace
    text: str

    @property
    def software(self) -> str:
        """The environment that its action names, and what only the run has shown."""
        return f"{environment_in(self.text)} {canonical(dict(self.trace.loaded))}"


@dataclass
class Memory:
    """The traces of a store, found by what is the same under different software."""

    blobs: Blobs
    _alike: dict[Digest, list[Digest]] | None = None
    """The actions of all traces by the digest of their texts without the environment; read when it is first needed."""

    def find(self, action: Action, newer: str, moved: bool, counts: Counts) -> Found | None:
        """The trace of an action, or of one that differs in its environment alone.

        `newer` is the software of the same step in the newer state it is compared with, "" if there is none. Unless the
        lock files between the two have changed (`moved`), that is preferred, so that a commit is not blamed for what
        it did not change; else any other, the last made. Then the software of now, which `counts` knows.
        """
        trace = self.blobs.trace(action.digest, counts=counts)
        exact = Found(trace, action.text) if trace is not None else None
        if exact is not None and newer in ("", exact.software) and not moved:
            return exact
        candidates = [found for one in (action.digest, *self._like(action)) for found in self._found(one)]
        if not candidates:
            return None

        def rank(found: Found) -> tuple[bool, bool, float]:
            same = found.software == newer
            return (same is not moved if newer else True, found == exact and not moved, found.trace.when)

        return max(candidates, key=rank)

    def _found(self, action: Digest) -> list[Found]:
        """The traces of an action that stand, each for the distributions that its run has shown."""
        traces = self.blobs.traces(action)
        try:
            text = self.blobs.read(action).decode() if traces else ""
        except (StoreError, ValueError):
            return []
        found = []
        for loaded in {canonical(dict(trace.loaded)): trace.loaded for trace in traces}.values():
            standing = self.blobs.trace(action, counts=partial(operator.eq, loaded))
            found += [Found(standing, text)] if standing is not None else []
        return found

    def _like(self, action: Action) -> list[Digest]:
        """The other actions that differ from this one in their environment alone."""
        if self._alike is None:
            self._alike = {}
            for one in self.blobs.actions():
                try:
                    text = self.blobs.read(one).decode()
                except (StoreError, ValueError):
                    continue
                self._alike.setdefault(_shape(text), []).append(one)
        return [one for one in self._alike.get(_shape(action.text), ()) if one != action.digest]


def _shape(text: str) -> Digest:
    return digest_of(without_environment(text).encode())


@dataclass
class Recall:
    """Answers for the nodes of one state of a project; `newer` and `moved` as in Memory.find, `newer` by node."""

    memory: Memory
    newer: Mapping[str, str] = field(default_factory=dict)
    moved: bool = False
    software: dict[str, str] = field(default_factory=dict)
    """By node, the software with which what was found was made."""

    def __call__(self, services: Services, match: Match) -> Asking:
        """What is remembered of a node: Made, Failed, Unknown or WouldRun."""
        return answered(match, _source(services, match) if match.rule.address else self._step(services, match))

    def _step(self, services: Services, match: Match) -> Asking:
        decided: Decided = yield from decide(services, match)
        action = decided.action
        newer = self.newer.get(match.node, "")
        found = self.memory.find(action, newer, self.moved, services.environments.counts)
        services.actions[match.node] = action
        if found is None:
            return WouldRun("run", "no trace of it is in this store")
        action = replace(action, digest=found.trace.action, text=found.text)
        services.actions[match.node] = action
        self.software[match.node] = found.software
        loaded = found.trace.loaded
        groups = (*decided.groups, (installed_key(loaded),)) if loaded else decided.groups
        outputs = {path: found.trace.outputs[name] for name, path in match.outputs.items()}
        return _made(match, groups, action.digest, outputs, decided.snapshot)


def _made(match: Match, groups: Any, action: str, outputs: Mapping[str, Digest], snapshot: Digest = "") -> Made:
    absent: dict[str, tuple[Digest, Any]] = {path: (digest, None) for path, digest in outputs.items()}
    return Made(outputs, "recalled", Fact(match.node, match.rule.digest, groups, action, absent, snapshot))


# Sources -----------------------------------------------------------------------------------------------------------


def _source(services: Services, match: Match) -> Asking:
    """What a source's data were: what its pin says; without a pin what lies in the project's files."""
    target = match.node
    recorded = pins.pinned(services, match.experiment)
    known = {n: h for n, h in recorded.items() if n == target or (target.endswith("/") and n.startswith(target))}
    digest: Digest | None
    if is_web(match.rule.address):
        digest = _fetched(services, known[target]) if target in known else None
        if digest is None:
            return WouldRun("run", "its data are not in this store" if known else "it is not pinned yet")
        return _made(match, (), f"source {digest}", {target: digest})
    path = locate(match.rule.address, services.project.root, match.experiment)
    if known and not _is_ours(services, path):
        digest = _by_pins(services, target, known)
        if digest is not None:
            return _made(match, (), f"source {digest}", {target: digest})
    (result,) = yield [path]
    if not isinstance(result, Answer):
        return result if isinstance(result, Failed | Unknown) else WouldRun("run", "its data are not here")
    found = _hexes(target, result)
    if known and found != known and not _is_ours(services, path):
        return WouldRun("run", "the data that are pinned are neither in this store nor at their address")
    pins.check(services, match, found)
    return _made(match, (((path, result.digest),),), f"source {result.digest}", {target: result.digest})


def _is_ours(services: Services, path: str) -> bool:
    """Whether what lies at an absolute path is a file of this very state, and no link to one that lies elsewhere."""
    root = os.path.join(os.path.realpath(services.project.root), "")
    return os.path.realpath(path).startswith(root) and os.path.exists(path)


def _hexes(target: str, result: Answer) -> dict[str, str]:
    if result.data is None:
        return {target: hex_of(result.digest)}
    return {target + entry.path: hex_of(entry.value) for entry in parse_manifest(result.data) if entry.kind in "fx"}


def _fetched(services: Services, pin: str) -> Digest | None:
    trace = services.blobs.trace(digest_of(datum(pin).encode()))
    return trace.outputs["out"] if trace is not None else services.blobs.named(pin)


def _by_pins(services: Services, target: str, known: Mapping[str, str]) -> Digest | None:
    """The digest of pinned data that this store has. A folder's is known if it held nothing but plain files."""
    if not target.endswith("/"):
        return services.blobs.named(known[target])
    entries = []
    for path, pin in known.items():
        blob = services.blobs.named(pin)
        if blob is None:
            return None
        entries.append(Entry("f", path[len(target) :], blob))
    manifest = digest_of(render_manifest(entries)) + "/"
    return manifest if services.blobs.has(manifest) else None

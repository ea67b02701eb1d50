"""The wave of a small change: from the paths that gear 1 found changed to the nodes they can reach.

Everything else is as it was, for gear 1 compared its stats: its facts answer for it, and rule files are not even read.
A change to anything but a source or a target (code, rules, the environment) has no wave: then all is looked at. Kept
for LARGE builds only: for a small one the whole look costs less than a person notices. What is kept: engine.waveindex.
"""

from __future__ import annotations

import array
import marshal
import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from labmake.data.slices import split_slice
from labmake.engine import snapshot, waveindex
from labmake.engine.build import Build
from labmake.engine.nodes import Made
from labmake.engine.patterns import fill, match
from labmake.engine.rulebook import EXP, Match
from labmake.engine.services import Services
from labmake.engine.watched import inside
from labmake.engine.waveindex import MANY, Index, index_of
from labmake.frozen import frozen
from labmake.layout import GENERATED, experiment_of
from labmake.model import Key, Rule

LARGE = 500
"""Nodes from which a wave is worth keeping."""


@frozen
class Wave:
    """The nodes that a change can reach, the asked targets among them, and the matches of those that are no plans."""

    nodes: frozenset[str]
    targets: list[str]
    matches: list[Match]
    index: Index

    @property
    def total(self) -> int:
        """How many nodes the whole build has."""
        return self.index.count

    def owner(self, path: str) -> str:
        """The node whose target a path is."""
        return self.index.owner(path)


def keep_wave(services: Services, build: Build, asked: str, targets: Sequence[str]) -> None:
    """Write the wave index of a build that brought all of `targets`."""
    if len(build.outcome.made) < LARGE or services.rulebook.temps:
        return
    dependents: dict[str, list[str]] = {}
    owners: dict[str, str] = {}
    always: list[str] = []
    rules: dict[str, int] = {}
    pickles: list[bytes] = []
    numbers: dict[int, int] = {}

    def owner(path: str) -> str:
        return services.rulebook.find(path).node if path.startswith(f"{GENERATED}/") else path

    for node, made in build.outcome.made.items():
        _enter(owner, node, made.fact.groups, dependents, always)
        for path, (_, stats) in made.fact.outputs.items():
            if path != node:
                owners[path] = node
            if isinstance(stats, dict):
                owners.update((path + name, node) for name in stats)
        rule = services.rulebook.find(node).rule
        if id(rule) not in numbers:
            numbers[id(rule)] = len(pickles)
            pickles.append(b"" if rule.plan is not None else pickle.dumps(rule, pickle.HIGHEST_PROTOCOL))
        rules[node] = numbers[id(rule)]
    index = index_of(targets, dependents, owners, always, rules, pickles)
    waveindex.write(str(services.project.state), asked, index)


def _enter(
    owner: Callable[[str], str],
    node: str,
    groups: Iterable[Iterable[tuple[Key, str]]],
    dependents: dict[str, list[str]],
    always: list[str],
) -> None:
    for group in groups:
        for key, _ in group:
            for path in _base(key):
                if path == "*":
                    always.append(node)
                else:
                    dependents.setdefault(owner(path), []).append(node)


def _base(key: Key) -> Iterable[str]:
    """The path behind a key; "*" for a listing of generated files; nothing for code, variables and the environment."""
    if key.startswith("?"):
        word, _, rest = key[1:].partition(" ")
        if word in ("try", "keys"):
            yield from _base(rest)
        elif word in ("list", "find", "glob") and rest.startswith(f"{GENERATED}/"):
            yield "*"
        return
    cut = split_slice(key)
    yield cut[0] if cut is not None else key


def spread(services: Services, asked: str, changed: Sequence[str]) -> Wave | None:
    """The wave of changed paths; None if one of them is no source or target, or nothing was kept."""
    index = waveindex.read(str(services.project.state), asked)
    if index is None:
        return None
    waiting: list[str] = list(index.always())
    reached: set[str] = set(waiting)
    root = os.path.join(services.project.root, "")
    for path in changed:
        owner = index.owner(path.removeprefix(root))
        if index.is_node(owner):
            reached.add(owner)
        elif not any(True for _ in index.dependents(owner)):
            return None
        waiting.append(owner)
    while waiting:
        for node in index.dependents(waiting.pop()):
            if node not in reached:
                reached.add(node)
                waiting.append(node)
    matches = [found for node in reached if (found := _match(index, node)) is not None]
    return Wave(frozenset(reached), index.owned(reached), matches, index)


def _match(index: Index, node: str) -> Match | None:
    """The match of a node, from what is kept of its rule; None for a plan's."""
    pickled = index.rule(node)
    if not pickled:
        return None
    rule: Rule = pickle.loads(pickled)
    experiment = experiment_of(node) or ""
    found = match(fill(next(iter(rule.outputs.values())), {EXP: experiment}), node)
    return None if found is None else Match(rule, found.binding, experiment)


def keep_changed(services: Services, build: Build, wave: Wave, asked: str, told: str, gone: bool) -> None:
    """Bring the snapshot and the wave index of a question up to date after a wave.

    Only the stats of what the wave looked at are other ones. Both are forgotten, so that the next build looks at
    everything, if targets came or went, if a folder was made, or if something is too young to be trusted.
    """
    ran = {node: made for node, made in build.outcome.made.items() if made.how != "fresh"}
    changed = {path: placed[1] for made in ran.values() for path, placed in made.fact.outputs.items()}
    kept = snapshot.read(str(services.project.state), asked)
    used = inside(services, services.stats.used)
    sources = {path: known for path, known in used.items() if known is not None}
    folders = any(path.endswith("/") for path in changed)
    young = any(path not in sources and os.path.lexists(services.absolute(path)) for path in used)
    if not (gone or folders or young or kept is None) and _enter_changed(services, ran, wave.index, asked):
        _, _, variables, root, placed, looked, absent, _ = kept
        new = (_patched(placed, changed), _patched(looked, sources))
        if None not in new:
            data = (snapshot.VERSION, asked, variables, root, *new, absent, told)
            snapshot.keep(snapshot.file_of(str(services.project.state), asked), marshal.dumps(data))
            return
    waveindex.forget(str(services.project.state), asked)


def _patched(kept: tuple[bytes, bytes], stats: Mapping[str, Any]) -> tuple[bytes, bytes] | None:
    """A snapshot's part with other stats for some of its paths; None if one of them is not in it."""
    paths, flat = b"\0" + kept[0] + b"\0", bytearray(kept[1])
    for path, stat in stats.items():
        place = paths.find(b"\0" + os.fsencode(path) + b"\0")
        if place < 0:
            return None
        number = paths.count(b"\0", 0, place)
        packed = array.array("q", stat).tobytes()
        flat[number * len(packed) : (number + 1) * len(packed)] = packed
    return kept[0], bytes(flat)


def _enter_changed(services: Services, ran: Mapping[str, Made], index: Index, asked: str) -> bool:
    """Enter into the wave index what these nodes ask for now; False if one, or what it asks for, cannot be entered."""
    before = len(index.more)
    for node, made in ran.items():
        fresh: dict[str, list[str]] = {}
        listing: list[str] = []
        _enter(index.owner, node, made.fact.groups, fresh, listing)
        if not index.is_node(node) or any(s.startswith(f"{GENERATED}/") and not index.is_node(s) for s in fresh):
            return False
        if listing and node not in index.always():
            return False
        index.more += [(source, node) for source in fresh if node not in index.dependents(source)]
    if len(index.more) > MANY:
        return False
    if len(index.more) > before:
        waveindex.write(str(services.project.state), asked, index)
    return True

"""The wave of a small change: from the paths that gear 1 found changed to the nodes they can reach.

    state/gear1/<crc of the question>.wave   marshal of (VERSION, question, targets, dependents, owners, always, rules,
                                             pickles)

Everything else is as it was, for gear 1 compared its stats: its facts answer for it, and rule files are not even read.
`dependents` maps a source's path or a node to the nodes whose facts asked for it, `owners` a target's path to its node
(where they differ), `always` are nodes that asked for a listing of generated files, `rules` maps a node to the number
of its rule among `pickles`, where a plan is b"": it is in its file only. A change to anything but a source or a target
(code, rules, the environment) has no wave: then all is looked at. Kept for LARGE builds only: for a small one the whole
look costs less than a person notices.
"""

from __future__ import annotations

import array
import marshal
import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labmake.data.slices import split_slice
from labmake.engine import snapshot
from labmake.engine.build import Build
from labmake.engine.nodes import Made
from labmake.engine.patterns import fill, match
from labmake.engine.rulebook import EXP, Match
from labmake.engine.services import Services
from labmake.layout import GENERATED, experiment_of
from labmake.model import Key, Rule

LARGE = 500
"""Nodes from which a wave is worth keeping."""


@dataclass
class Index:
    """What is kept of a build for its waves: see the head of this file."""

    targets: list[str]
    dependents: dict[str, list[str]]
    owners: dict[str, str]
    always: list[str]
    rules: dict[str, int]
    pickles: list[bytes]


@dataclass(frozen=True)
class Wave:
    """The nodes that a change can reach, the asked targets among them, and the matches of those that are no plans.

    `owners` and `total` are of the whole build: a path's node where it is not the path itself, and how many nodes
    there are.
    """

    nodes: frozenset[str]
    targets: list[str]
    matches: list[Match]
    owners: dict[str, str]
    total: int
    index: Index


def _file(services: Services, asked: str) -> str:
    return snapshot.file_of(str(services.project.state), asked) + ".wave"


def _write(services: Services, asked: str, index: Index) -> None:
    parts = (index.targets, index.dependents, index.owners, index.always, index.rules, index.pickles)
    snapshot.keep(_file(services, asked), marshal.dumps((snapshot.VERSION, asked, *parts)))


def _read(services: Services, asked: str) -> Index | None:
    try:
        with open(_file(services, asked), "rb") as file:
            version, same, *parts = marshal.loads(file.read())
        return Index(*parts) if version == snapshot.VERSION and same == asked else None
    except (OSError, ValueError, EOFError, TypeError):
        return None


def keep_wave(services: Services, build: Build, asked: str, targets: Sequence[str]) -> None:
    """Write the wave index of a build that brought all of `targets`."""
    if len(build.outcome.made) < LARGE:
        return
    index = Index(list(targets), {}, {}, [], {}, [])
    numbers: dict[int, int] = {}

    def owner(path: str) -> str:
        return services.rulebook.find(path).node if path.startswith(f"{GENERATED}/") else path

    for node, made in build.outcome.made.items():
        _enter(owner, node, made.fact.groups, index.dependents, index.always)
        for path, (_, stats) in made.fact.outputs.items():
            if path != node:
                index.owners[path] = node
            if isinstance(stats, dict):
                index.owners.update((path + name, node) for name in stats)
        rule = services.rulebook.find(node).rule
        if id(rule) not in numbers:
            numbers[id(rule)] = len(index.pickles)
            index.pickles.append(b"" if rule.plan is not None else pickle.dumps(rule, pickle.HIGHEST_PROTOCOL))
        index.rules[node] = numbers[id(rule)]
    _write(services, asked, index)


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
    index = _read(services, asked)
    if index is None:
        return None
    waiting: list[str] = list(index.always)
    reached: set[str] = set(index.always)
    root = os.path.join(services.project.root, "")
    for path in changed:
        inside = path.removeprefix(root)
        owner = index.owners.get(inside, inside)
        if owner in index.rules:
            reached.add(owner)
        elif owner not in index.dependents:
            return None
        waiting.append(owner)
    while waiting:
        for node in index.dependents.get(waiting.pop(), ()):
            if node not in reached:
                reached.add(node)
                waiting.append(node)
    matches = [found for node in reached if (found := _match(index, node)) is not None]
    asked_for = [target for target in index.targets if index.owners.get(target, target) in reached]
    return Wave(frozenset(reached), asked_for, matches, index.owners, len(index.rules), index)


def _match(index: Index, node: str) -> Match | None:
    """The match of a node, from what is kept of its rule; None for a plan's."""
    pickled = index.pickles[index.rules[node]]
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
    sources = {path: known for path, known in services.stats.used.items() if known is not None}
    folders = any(path.endswith("/") for path in changed)
    young = any(p not in sources and os.path.lexists(services.absolute(p)) for p in services.stats.used)
    if not (gone or folders or young or kept is None) and _enter_changed(services, ran, wave.index, asked):
        _, _, variables, root, placed, looked, absent, _ = kept
        new = (_patched(placed, changed), _patched(looked, sources))
        if None not in new:
            data = (snapshot.VERSION, asked, variables, root, *new, absent, told)
            snapshot.keep(snapshot.file_of(str(services.project.state), asked), marshal.dumps(data))
            return
    for path in (_file(services, asked), snapshot.file_of(str(services.project.state), asked)):
        Path(path).unlink(missing_ok=True)


def _patched(kept: tuple[bytes, bytes], stats: Mapping[str, Any]) -> tuple[bytes, bytes] | None:
    """A snapshot's part with other stats for some of its paths; None if one of them is not in it."""
    paths = kept[0].split(b"\0")
    flat = bytearray(kept[1])
    for path, stat in stats.items():
        try:
            number = paths.index(os.fsencode(path))
        except ValueError:
            return None
        packed = array.array("q", stat).tobytes()
        flat[number * len(packed) : (number + 1) * len(packed)] = packed
    return kept[0], bytes(flat)


def _enter_changed(services: Services, ran: Mapping[str, Made], index: Index, asked: str) -> bool:
    """Enter into the wave index what these nodes ask for now; False if one, or what it asks for, is not in it."""
    more = False
    for node, made in ran.items():
        fresh: dict[str, list[str]] = {}
        listing: list[str] = []
        _enter(lambda path: index.owners.get(path, path), node, made.fact.groups, fresh, listing)
        if node not in index.rules or any(s.startswith(f"{GENERATED}/") and s not in index.rules for s in fresh):
            return False
        for source in fresh:
            if node not in index.dependents.get(source, ()):
                index.dependents.setdefault(source, []).append(node)
                more = True
        if listing and node not in index.always:
            index.always.append(node)
            more = True
    if more:
        _write(services, asked, index)
    return True

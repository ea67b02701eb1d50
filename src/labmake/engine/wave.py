"""The wave of a small change: from the paths that gear 1 found changed to the nodes they can reach.

    state/gear1/<crc of the question>.wave   marshal of (VERSION, question, targets, dependents, owners, always, rules)

Everything else is as it was, for gear 1 compared its stats: its facts answer for it, and its rules are not even read.
`dependents` maps a source's path or a node to the nodes whose facts asked for it, `owners` a target's path to its node
(where they differ), `always` are nodes that asked for a listing of generated files, `rules` maps a node to its rule's
number in its file. A change to anything but a source or a target (code, rules, the environment) has no wave: then all
is looked at. Kept for LARGE builds only: for a small one the whole look costs less than a person notices.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labmake.data.slices import split_slice
from labmake.engine import snapshot
from labmake.engine.build import Build
from labmake.engine.nodes import Made
from labmake.engine.services import Services
from labmake.layout import GENERATED
from labmake.model import Key

LARGE = 500
"""Nodes from which a wave is worth keeping."""

BUILT_IN = -1
"""The number of a built-in rule, which looks at all rules of its experiment."""


@dataclass(frozen=True)
class Wave:
    """The nodes that a change can reach, and the asked targets among them.

    `rules` are the numbers of their rules by rule file, None if all rules are needed; `owners` and `total` are of the
    whole build: a path's node where it is not the path itself, and how many nodes there are.
    """

    nodes: frozenset[str]
    targets: list[str]
    rules: dict[str, frozenset[int]] | None
    owners: dict[str, str]
    total: int


def _file(services: Services, asked: str) -> str:
    return snapshot.file_of(str(services.project.state), asked) + ".wave"


def keep_wave(services: Services, build: Build, asked: str, targets: Sequence[str]) -> None:
    """Write the wave index of a build that brought all of `targets`."""
    if len(build.outcome.made) < LARGE:
        return
    dependents: dict[str, list[str]] = {}
    owners: dict[str, str] = {}
    always: list[str] = []
    rules: dict[str, tuple[str, int]] = {}

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
        rules[node] = (rule.home, rule.number)
    data = marshal.dumps((snapshot.VERSION, asked, list(targets), dependents, owners, always, rules))
    snapshot.keep(_file(services, asked), data)


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
    try:
        with open(_file(services, asked), "rb") as file:
            version, same, targets, dependents, owners, always, rules = marshal.loads(file.read())
    except (OSError, ValueError, EOFError, TypeError):
        return None
    if version != snapshot.VERSION or same != asked:
        return None
    waiting: list[str] = list(always)
    reached: set[str] = set(always)
    root = os.path.join(services.project.root, "")
    for path in changed:
        inside = path.removeprefix(root)
        owner = owners.get(inside, inside)
        if owner in rules:
            reached.add(owner)
            waiting.append(owner)
        elif owner not in dependents:
            return None
        waiting.append(owner)
    while waiting:
        for node in dependents.get(waiting.pop(), ()):
            if node not in reached:
                reached.add(node)
                waiting.append(node)
    numbers: dict[str, set[int]] = {}
    for node in reached:
        home, number = rules[node]
        numbers.setdefault(home, set()).add(number)
    some = {home: frozenset(found) for home, found in numbers.items()}
    narrow = None if any(BUILT_IN in found for found in some.values()) else some
    asked_for = [target for target in targets if owners.get(target, target) in reached]
    return Wave(frozenset(reached), asked_for, narrow, owners, len(rules))


def keep_changed(services: Services, build: Build, asked: str, told: str, gone: bool) -> None:
    """Bring the snapshot and the wave index of a question up to date after a wave.

    Only the stats of what the wave looked at are other ones. Both are forgotten, so that the next build looks at
    everything, if targets came or went, if a folder was made, or if something is too young to be trusted.
    """
    ran = {node: made for node, made in build.outcome.made.items() if made.how != "fresh"}
    changed = {path: placed for made in ran.values() for path, placed in made.fact.outputs.items()}
    kept = snapshot.read(str(services.project.state), asked)
    sources = {path: known for path, known in services.stats.used.items() if known is not None}
    folders = any(path.endswith("/") for path in changed)
    young = any(p not in sources and os.path.lexists(services.absolute(p)) for p in services.stats.used)
    if gone or folders or young or kept is None or not _enter_changed(services, ran, asked):
        _forget(services, asked)
        return
    _, _, variables, root, placed, looked, absent, _ = kept
    new_placed = {**snapshot.unpacked(placed, 3), **{path: stats for path, (_, stats) in changed.items()}}
    new_looked = {**snapshot.unpacked(looked, 4), **sources}
    snapshot.write(str(services.project.state), asked, dict(variables), root, new_placed, new_looked, absent, told)  # type: ignore[arg-type]


def _forget(services: Services, asked: str) -> None:
    for path in (_file(services, asked), snapshot.file_of(str(services.project.state), asked)):
        Path(path).unlink(missing_ok=True)


def _enter_changed(services: Services, ran: Mapping[str, Made], asked: str) -> bool:
    """Enter into the wave index what these nodes ask for now; False if one, or what it asks for, is not in it."""
    with open(_file(services, asked), "rb") as file:
        version, same, targets, dependents, owners, always, rules = marshal.loads(file.read())
    more = False
    for node, made in ran.items():
        fresh: dict[str, list[str]] = {}
        listing: list[str] = []
        _enter(lambda path: owners.get(path, path), node, made.fact.groups, fresh, listing)
        if node not in rules or any(s.startswith(f"{GENERATED}/") and s not in rules for s in fresh):
            return False
        for source in fresh:
            if node not in dependents.get(source, ()):
                dependents.setdefault(source, []).append(node)
                more = True
        if listing and node not in always:
            always.append(node)
            more = True
    if more:
        data = marshal.dumps((version, same, targets, dependents, owners, always, rules))
        snapshot.keep(_file(services, asked), data)
    return True

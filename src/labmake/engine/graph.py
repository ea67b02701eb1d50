"""The graph of targets and steps as it is known now: from facts where made, from rules where not yet.

A target that was made is shown with what its plan asked for; one that was not, with what its rule names, wildcards
included. What a plan will ask for is not known before it has decided. Many targets of one rule are one box.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from labmake.data.slices import split_slice
from labmake.engine.patterns import fill, match, wildcards
from labmake.engine.rulebook import EXP
from labmake.engine.services import Services
from labmake.errors import LabmakeError
from labmake.frozen import frozen
from labmake.layout import GENERATED, expand
from labmake.model import Each, Fact, Find, Glob, Key, Rule

MANY = 12
"""Targets of one rule up to which each has its own box."""


@frozen
class Box:
    """A target, source file or step. `kind`: target, file, step, plan (a step that is not decided yet)."""

    kind: str
    label: str


@dataclass
class Graph:
    """Boxes by name, and arrows (from, to) in the order in which they were found."""

    boxes: dict[str, Box] = field(default_factory=dict)
    arrows: dict[tuple[str, str], None] = field(default_factory=dict)

    def arrow(self, start: str, end: str) -> None:
        self.arrows[start, end] = None


@frozen
class _Node:
    """A node: its targets, the paths it needs, its rule, whether its plan has not decided yet."""

    targets: tuple[str, ...]
    needs: tuple[str, ...]
    rule: Rule
    open: bool


def graph(
    services: Services,
    fact: Callable[[str], Fact | None],
    targets: Iterable[str],
    shown: Callable[[str], str],
    recipe: Callable[[Rule], str],
) -> Graph:
    """The graph of what `targets` need. `shown` gives the label of a path, `recipe` that of a rule's step."""
    nodes: dict[str, _Node] = {}
    owner: dict[str, str] = {}
    waiting = list(targets)
    while waiting:
        path = waiting.pop(0)
        if path in owner or not path.startswith(f"{GENERATED}/"):
            continue
        found = _node(services, fact, path)
        owner[path] = found.targets[0] if found else ""
        if found is not None and found.targets[0] not in nodes:
            nodes[found.targets[0]] = found
            owner |= dict.fromkeys(found.targets, found.targets[0])
            waiting += found.needs
    return _drawn(nodes, owner, shown, recipe)


def _node(services: Services, fact: Callable[[str], Fact | None], path: str) -> _Node | None:
    """The node that makes a path, or the targets that a path with wildcards stands for; None if nothing makes it."""
    if not wildcards_of(path):
        try:
            found = services.rulebook.find(path)
        except LabmakeError:
            return None
        known = fact(found.node)
        if known is not None and known.rule == found.rule.digest:
            return _Node(tuple(known.outputs), tuple(_asked(known)), found.rule, False)
        needs = tuple(_named(found.rule, found.values))
        return _Node(tuple(found.outputs.values()), needs, found.rule, found.rule.plan is not None)
    rule = _rule_of(services, path)
    if rule is None:
        return None
    values = _values_in(rule, path)
    outputs = tuple(without_expressions(fill(pattern, values)) for pattern in rule.outputs.values())
    return _Node(outputs, tuple(_named(rule, values)), rule, rule.plan is not None)


def wildcards_of(path: str) -> list[str]:
    """The wildcards of a path; none if its braces are no wildcards."""
    try:
        return wildcards(path)
    except LabmakeError:
        return []


def without_expressions(pattern: str) -> str:
    """A pattern with its wildcards' names only."""
    return fill(pattern, {name: f"{{{name}}}" for name in wildcards(pattern)})


def _rule_of(services: Services, path: str) -> Rule | None:
    """The rule whose pattern a path with wildcards stands for, whatever the wildcards are called."""
    experiment = _experiment(services, path)
    for rule in services.rulebook.rules(experiment):
        for pattern in rule.outputs.values():
            mine = without_expressions(fill(pattern, {EXP: experiment}))
            if re.sub(r"\{\w+\}", "{}", mine) == re.sub(r"\{\w+\}", "{}", path):
                return rule
    for value in ("0", "a", "1", "2000-01-01"):
        try:
            return services.rulebook.find(fill(path, dict.fromkeys(wildcards(path), value))).rule
        except LabmakeError:
            continue
    return None


def _experiment(services: Services, path: str) -> str:
    name = path.split("/")[1]
    return name if name in services.rulebook.experiments else ""


def _values_in(rule: Rule, path: str) -> dict[str, str]:
    """The wildcards' values in a path, some of which are wildcards themselves."""
    for pattern in rule.outputs.values():
        found = match(without_expressions(pattern), path)
        if found is not None:
            return dict(found.binding)
    return {}


def _asked(fact: Fact) -> Iterator[str]:
    """The paths among what a fact's plan asked for: targets and files, of slices the file; no code, no variables."""
    for group in fact.groups:
        for key, _ in group:
            path = _path_in(key)
            if path is not None:
                yield path


def _path_in(key: Key) -> str | None:
    if key.startswith("?"):
        word, _, rest = key[1:].partition(" ")
        return _path_in(rest) if word in ("keys", "try") else None
    cut = split_slice(key)
    return cut[0] if cut else key


def _named(rule: Rule, values: dict[str, str]) -> Iterator[str]:
    """The paths that a rule's inputs name, with the wildcards that are not known yet."""
    if rule.address:
        yield rule.address
    for spec in rule.step.inputs.values() if rule.step is not None else ():
        for written, more in _written(spec):
            path = fill(written, {**values, **more})
            cut = split_slice(path)
            try:
                yield without_expressions(expand(cut[0] if cut else path, rule.home))
            except LabmakeError:
                yield path


def _written(spec: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """(path or pattern, values of its wildcards) for every path that an input names."""
    if isinstance(spec, str):
        yield spec, {}
    elif isinstance(spec, Find | Glob):
        yield spec.pattern, {}
    elif isinstance(spec, Each):
        lists = {name: over for name, over in spec.over.items() if isinstance(over, (list, tuple))}
        if len(lists) == len(spec.over) == 1:
            ((name, over),) = lists.items()
            yield from ((spec.pattern, {name: str(value)}) for value in over)
        else:
            yield spec.pattern, {}
        for over in spec.over.values():
            if isinstance(over, str | Find):
                yield from _written(over)
    elif isinstance(spec, dict):
        for one in spec.values():
            yield from _written(one)
    elif isinstance(spec, list | tuple):
        for one in spec:
            yield from _written(one)


def _drawn(
    nodes: dict[str, _Node], owner: dict[str, str], shown: Callable[[str], str], recipe: Callable[[Rule], str]
) -> Graph:
    """Boxes and arrows: what is needed → step → targets. Many nodes of one rule are one step with one box a pattern."""
    drawn = Graph()
    stands = _standing_for_many(nodes, drawn, shown)
    for name, node in nodes.items():
        step = f"step {stands.get(name, name)}"
        drawn.boxes.setdefault(step, Box("plan" if node.open else "step", recipe(node.rule)))
        for target in node.targets:
            box = stands.get(target, target)
            drawn.boxes.setdefault(box, Box("target", shown(target)))
            drawn.arrow(step, box)
        for need in node.needs:
            box = _box_of(need, owner, stands)
            drawn.boxes.setdefault(box, Box("target" if owner.get(need) else "file", shown(need)))
            drawn.arrow(box, step)
    return drawn


def _standing_for_many(nodes: dict[str, _Node], drawn: Graph, shown: Callable[[str], str]) -> dict[str, str]:
    """Target → the box that stands for it and all others of its pattern, for rules with many; the boxes are drawn."""
    per_pattern: dict[tuple[str, str, int], list[str]] = {}
    for node in nodes.values():
        experiment = node.targets[0].split("/")[1]
        for index, (pattern, target) in enumerate(zip(node.rule.outputs.values(), node.targets, strict=False)):
            common = without_expressions(fill(pattern, {EXP: experiment}))
            per_pattern.setdefault((common, node.rule.digest, index), []).append(target)
    stands: dict[str, str] = {}
    for (common, _, _), targets in per_pattern.items():
        if len(targets) > MANY:
            drawn.boxes[f"many {common}"] = Box("target", f"{shown(common)} ({len(targets)})")
            stands |= dict.fromkeys(targets, f"many {common}")
    return stands


def _box_of(need: str, owner: dict[str, str], stands: dict[str, str]) -> str:
    """The box of a path: its own, or that of the folder target it lies in, or that of the many it is one of."""
    if need in stands:
        return stands[need]
    node = owner.get(need, "")
    folder = stands.get(node, node)
    return folder if node.endswith("/") and need.startswith(node) else need


# Texts


def mermaid(drawn: Graph) -> str:
    """The graph as a Mermaid flowchart, as GitHub, GitLab and Gitea show it in Markdown."""
    shapes = {"target": '["{}"]', "file": '[/"{}"/]', "step": '("{}")', "plan": '{{{{"{}"}}}}'}
    names = {box: f"n{number}" for number, box in enumerate(drawn.boxes)}
    lines = ["flowchart LR"]
    lines += [f"  {names[name]}{shapes[box.kind].format(mermaid_text(box.label))}" for name, box in drawn.boxes.items()]
    lines += [f"  {names[start]} --> {names[end]}" for start, end in drawn.arrows]
    return "\n".join(lines) + "\n"


def mermaid_text(text: str) -> str:
    """A label for Mermaid: whatever could end it, begin markup or be an entity is written by its number."""
    return "".join(c if c.isalnum() or c in " ._-/:,()=" else f"#{ord(c)};" for c in text)


def dot(drawn: Graph) -> str:
    """The graph in Graphviz's language."""
    shapes = {"target": "box", "file": "note", "step": "ellipse", "plan": "hexagon"}
    names = {box: f"n{number}" for number, box in enumerate(drawn.boxes)}
    lines = ["digraph labmake {", "  rankdir=LR;"]
    lines += [
        f'  {names[name]} [shape={shapes[box.kind]}, label="{dot_text(box.label)}"];'
        for name, box in drawn.boxes.items()
    ]
    lines += [f"  {names[start]} -> {names[end]};" for start, end in drawn.arrows]
    return "\n".join([*lines, "}"]) + "\n"


def dot_text(text: str) -> str:
    """A label in double quotes for DOT, in which a backslash begins an escape and a newline ends a line."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

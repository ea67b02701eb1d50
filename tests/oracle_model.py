"""The oracle's model: what an ideal build makes, which steps it runs, which files lie there afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from oracle_paths import digest, files_of, fill, lies, matched
from oracle_rules import (
    PLANS,
    Code,
    Data,
    Each,
    Found,
    Many,
    One,
    Rule,
    StepFails,
    command,
    elements,
    function_text,
    meaning,
)

EDITED = b"edited by hand"
"""How the content of a file begins that no step has written: nothing has a copy of it."""

Identity = tuple[Any, ...]
"""All that may change the result of a step and nothing else."""


@dataclass(frozen=True)
class Pipeline:
    """The rules and source files of one experiment."""

    rules: tuple[Rule, ...]
    sources: Mapping[str, str]


@dataclass(frozen=True)
class Known:
    """What the worktree should know of a node: its outputs as they were made last.

    An `orphan` is a path that its rule no longer makes.
    """

    outputs: Mapping[str, Data]
    orphan: bool = False


@dataclass
class World:
    """A project as it should be: code and pipelines as written, files as they lie, what the store has traces of.

    `unsure`: actions that a killed build has run, with the number of that build; at most as many of one build are lost
    as it had jobs (`losses`). `fuzzy`: nodes of which a killed build may or may not have recorded what it placed.
    """

    log: str
    code: Code
    comments: dict[str, str] = field(default_factory=dict)
    pipelines: dict[str, Pipeline] = field(default_factory=dict)
    trees: dict[str, dict[str, bytes]] = field(default_factory=dict)
    known: dict[str, dict[str, Known]] = field(default_factory=dict)
    done: set[Identity] = field(default_factory=set)
    unsure: dict[Identity, int] = field(default_factory=dict)
    losses: dict[int, int] = field(default_factory=dict)
    fuzzy: dict[str, set[str]] = field(default_factory=dict)


class NotMade(Exception):
    """A key that is not made, and why: failed, missing, edited, or unknown (a look that must run nothing)."""

    def __init__(self, why: str, root: str) -> None:
        super().__init__(f"{why}: {root}")
        self.why, self.root = why, root


@dataclass(frozen=True)
class Node:
    """A node that got as far as its action: what it makes (None: its step fails), and whether the step has to run."""

    name: str
    paths: tuple[str, ...]
    identity: Identity
    outputs: Mapping[str, Data] | None
    runs: bool


CODES = {"failed": 1, "missing": 2, "edited": 3}


class Look:
    """One look at an experiment: what building some of its targets would come to.

    `dry` has the nodes of a build that has just ended: with it nothing runs, and what would have to is unknown.
    """

    def __init__(
        self, world: World, name: str, *, forced: frozenset[str] = frozenset(), discard: bool = False, dry: Look | None
    ) -> None:
        self.world, self.name, self.forced, self.discard, self.dry = world, name, forced, discard, dry
        self.pipeline = world.pipelines[name]
        self.nodes: dict[str, Node] = {}
        self.roots: dict[str, str] = {}
        self._results: dict[str, Data | NotMade] = {}

    # Asking

    def ask(self, key: str) -> Data:
        """The content behind a path, a slice, or a question. Raises NotMade."""
        if key not in self._results:
            try:
                self._results[key] = self._answer(key)
            except NotMade as reason:
                self._results[key] = reason
                if reason.why != "unknown":
                    self.roots.setdefault(reason.root, reason.why)
        result = self._results[key]
        if isinstance(result, NotMade):
            raise result
        return result

    def group(self, keys: Sequence[tuple[str, bool]]) -> list[Data | None]:
        """Answers of keys that are asked together, all whatever becomes of one; None for a tolerated failure."""
        results: list[Data | NotMade | None] = []
        for key, tolerant in keys:
            try:
                results.append(self.ask(key))
            except NotMade as reason:
                results.append(None if tolerant and reason.why != "unknown" else reason)
        failures = [one for one in results if isinstance(one, NotMade)]
        for one in sorted(failures, key=lambda reason: reason.why == "unknown"):
            raise one
        return [one for one in results if not isinstance(one, NotMade)]

    def _answer(self, key: str) -> Data:
        word, _, rest = key.partition(" ")
        if word in ("keys", "find", "listdir"):
            return "\n".join(getattr(self, f"_{word}")(rest)).encode()
        if "#" in key:
            path, _, element = key.partition("#")
            found = elements(path, self._bytes(path))
            if element not in found:
                raise NotMade("missing", key)
            return found[element]
        if key.startswith("./"):
            if key not in self.pipeline.sources:
                raise NotMade("missing", key)
            return self.pipeline.sources[key].encode()
        found_rule = self.rule_of(key)
        if found_rule is None:
            raise NotMade("missing", key)
        rule, wild, inside = found_rule
        outputs = self._visited(rule, wild)
        for path, data in outputs.items():
            if path == key:
                return data
            if inside and key.startswith(path) and isinstance(data, dict):
                if inside not in data:
                    raise NotMade("missing", key)
                return data[inside]
        raise AssertionError(key)

    def _bytes(self, path: str) -> bytes:
        data = self.ask(path)
        assert isinstance(data, bytes)
        return data

    def _keys(self, path: str) -> list[str]:
        return list(elements(path, self._bytes(path)))

    def _listdir(self, folder: str) -> list[str]:
        return sorted(self.ask(folder))  # type: ignore[arg-type]

    def _find(self, pattern: str) -> list[str]:
        folder = pattern.rpartition("/")[0] + "/"
        return [folder + name for name in self._listdir(folder) if matched(pattern, folder + name) is not None]

    def rule_of(self, path: str) -> tuple[Rule, dict[str, str], str] | None:
        """The rule that makes a path, its wildcards, and the path inside if it is a folder's."""
        for rule in self.pipeline.rules:
            for pattern in rule.outputs:
                wild = matched(pattern, path)
                if wild is not None:
                    return rule, wild, ""
                if pattern.endswith("/") and path.startswith(pattern):
                    return rule, {}, path[len(pattern) :]
        return None

    # Nodes

    def _visited(self, rule: Rule, wild: Mapping[str, str]) -> Mapping[str, Data]:
        name = fill(rule.outputs[0], wild)
        if self.dry is not None and name in self.dry.nodes:
            done = self.dry.nodes[name].outputs
            assert done is not None
            return done
        key = f"@{name}"
        if key not in self._results:
            try:
                self._results[key] = dict(self._visit(name, rule, wild))  # type: ignore[assignment]
            except NotMade as reason:
                self._results[key] = reason
        result = self._results[key]
        if isinstance(result, NotMade):
            raise result
        return result  # type: ignore[return-value]

    def _visit(self, name: str, rule: Rule, wild: Mapping[str, str]) -> Mapping[str, Data]:
        inputs, tag = rule.inputs, rule.tag
        if rule.plan:
            inputs, tag = PLANS[rule.plan].decide(rule, wild, self._read)
        shown: list[tuple[str, str, str]] = []
        parts: list[Data] = []
        keys = [self._items(spec, wild) for spec in self._ranged(inputs, wild)]
        flat = [item for items in keys for item in items]
        answers = iter(self.group(flat))
        for number, items in enumerate(keys):
            for key, _ in items:
                data = next(answers)
                shown.append((f"i{number}", key, "failed" if data is None else digest(data)))
                parts += [] if data is None else [data]
        outputs = [fill(pattern, wild) for pattern in rule.outputs]
        identity = (self._recipe(rule, len(inputs)), tag, tuple(wild.items()), tuple(shown), tuple(outputs))
        try:
            made = dict(zip(outputs, meaning(rule, self.world.code, tag, wild, parts), strict=True))
        except StepFails:
            made = None
        new = identity not in self.world.done
        runs = new or name in self.forced
        if not self.discard and any(self._edited(name, path, made, runs) for path in outputs):
            raise NotMade("edited", name)
        if self.dry is not None:
            known = self.world.known[self.name].get(name)
            lying = made is not None and all(lies(self.world.trees[self.name], p, d) for p, d in made.items())
            if new or not lying or known is None or known.outputs != made:
                raise NotMade("unknown", name)
        node = Node(name, tuple(outputs), identity, made, runs)
        self.nodes[name] = node
        if made is None:
            raise NotMade("failed", name)
        return made

    def _read(self, paths: Sequence[str], tolerant: bool) -> list[bytes | None]:
        return self.group([(path, tolerant) for path in paths])  # type: ignore[return-value]

    def _ranged(self, inputs: Sequence[Any], wild: Mapping[str, str]) -> list[Any]:
        """The inputs, after asking together for all that each and find range over."""
        questions: list[tuple[str, bool]] = []
        for spec in inputs:
            ranges = [values for _, values in spec.over] if isinstance(spec, Each) else [spec]
            questions += [(question, False) for values in ranges if (question := self._question(values, wild))]
        self.group(questions)
        return list(inputs)

    def _question(self, values: object, wild: Mapping[str, str]) -> str:
        if isinstance(values, Found):
            return f"find {fill(values.pattern, wild)}"
        return f"keys {fill(values, wild)}" if isinstance(values, str) else ""

    def _items(self, spec: object, wild: Mapping[str, str]) -> list[tuple[str, bool]]:
        if isinstance(spec, One):
            return [(fill(spec.path, wild), False)]
        if isinstance(spec, Many):
            return [(fill(path, wild), False) for path in spec.paths]
        if isinstance(spec, Found):
            return [(path, False) for path in self._listed(self._question(spec, wild))]
        assert isinstance(spec, Each)
        ranges = []
        for name, values in spec.over:
            if isinstance(values, tuple):
                ranges.append(list(values))
            elif isinstance(values, Found):
                pattern = fill(values.pattern, wild)
                found = [matched(pattern, path) for path in self._listed(self._question(values, wild))]
                ranges.append([one[name] for one in found if one is not None])
            else:
                ranges.append(self._listed(self._question(values, wild)))
        names = [name for name, _ in spec.over]
        pattern = fill(spec.pattern, wild)
        return [(fill(pattern, dict(zip(names, c, strict=True))), spec.tolerant) for c in itertools.product(*ranges)]

    def _listed(self, question: str) -> list[str]:
        text = self._bytes(question).decode()
        return text.split("\n") if text else []

    def _recipe(self, rule: Rule, count: int) -> Identity:
        """The command or code of a rule, without comments that no result can depend on."""
        code = self.world.code
        if rule.style == "py":
            return (function_text(rule, "make", ""), code.helper)
        if rule.style == "own":
            return (function_text(rule, rule.name, ""), code.helper)
        text = command(rule, [One("")] * count, "")
        return (text, code.tool, code.tool_comment) if rule.style == "tool" else (text,)

    def _edited(self, node: str, path: str, made: Mapping[str, Data] | None, runs: bool) -> bool:
        """Whether a file lies in a target's place that would be lost if the target were placed.

        Which files a folder will have is not known before its step has run: then only those count that it has had.
        """
        tree = self.world.trees[self.name]
        if not path.endswith("/"):
            return tree.get(path, b"").startswith(EDITED)
        before = self.world.known[self.name].get(node)
        names: set[str] = set()
        for outputs in (before.outputs if before else {}, {} if runs else made or {}):
            names |= set(outputs.get(path, {}))  # type: ignore[arg-type]
        return any(tree.get(f"{path}{name}", b"").startswith(EDITED) for name in names)


def build(
    world: World, name: str, targets: Sequence[str], *, force: bool = False, discard: bool = False
) -> tuple[Look, int]:
    """What building these targets (none: the default ones) comes to, and the exit code."""
    look = Look(world, name, discard=discard, dry=None)
    wanted = list(targets) or defaults(world.pipelines[name])
    if force:
        nodes = {fill(found[0].outputs[0], found[1]) for path in wanted if (found := look.rule_of(path)) is not None}
        look = Look(world, name, forced=frozenset(nodes), discard=discard, dry=None)
    for path in wanted:
        try:
            look.ask(path)
        except NotMade:
            continue
    codes = {CODES[why] for why in look.roots.values()}
    return look, 0 if not codes else 1 if 1 in codes else max(codes)


def defaults(pipeline: Pipeline) -> list[str]:
    """The targets of a build that names none."""
    return [path for rule in pipeline.rules if rule.default and not rule.wildcards for path in rule.outputs]


def after(world: World, look: Look, complete: bool) -> tuple[dict[str, bytes], dict[str, Known]]:
    """The files that lie there, and what is known, after a build that came to `look`."""
    tree, known = dict(world.trees[look.name]), dict(world.known[look.name])
    for node in look.nodes.values():
        if node.outputs is None:
            tree = {k: v for k, v in tree.items() if not (v.startswith(EDITED) and _in_the_way(k, node, look.discard))}
            continue
        for path, data in node.outputs.items():
            tree = {k: v for k, v in tree.items() if not (k == path or (path[-1] == "/" and k.startswith(path)))}
            tree |= files_of(path, data)
        before = known.get(node.name, Known({})).outputs
        known |= {path: Known({path: data}, True) for path, data in before.items() if path not in node.outputs}
        known[node.name] = Known(node.outputs)
    if not complete:
        return tree, known
    done = replace(world, trees={**world.trees, look.name: tree}, known={**world.known, look.name: known})
    done.done = world.done | {node.identity for node in look.nodes.values()}
    probe = Look(done, look.name, dry=look)
    living = {path for node in look.nodes.values() for path in node.outputs or ()}
    gone = [node for node in known if node not in look.nodes and not _exists(probe, node)]
    for node in gone:
        left = known.pop(node)
        for path, data in left.outputs.items():
            if path not in living and lies(tree, path, data):
                for file in files_of(path, data):
                    del tree[file]
    return tree, known


def _in_the_way(path: str, node: Node, discard: bool) -> bool:
    """Whether a file is set aside before a step runs: an edit that is given up, or a foreign file in its folder."""
    return any((discard and path == one) or (one[-1] == "/" and path.startswith(one)) for one in node.paths)


def _exists(probe: Look, node: str) -> bool:
    found = probe.rule_of(node)
    if found is None or fill(found[0].outputs[0], found[1]) != node:
        return False
    try:
        probe.ask(node)
    except NotMade as reason:
        return reason.why != "missing"
    return True

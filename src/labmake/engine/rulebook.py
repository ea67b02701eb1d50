"""The rulebook: which rule makes a path. Rules are loaded per experiment, and only for those that are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from labmake.engine.patterns import Matched, fill, literal_length, match, wildcards
from labmake.errors import NoRule, RuleError, TwoRules, Where
from labmake.frozen import frozen
from labmake.layout import experiment_of, generated_folder, short
from labmake.model import Rule

EXP = "exp"
"""The wildcard by which a rule of rules.py serves all experiments; it enters no digest."""


@dataclass(frozen=True)
class Match:
    """A rule bound to wildcard values, for one experiment. `inside` is the rest of the path in a folder target."""

    rule: Rule
    binding: Mapping[str, str]
    experiment: str
    inside: str = ""

    @property
    def values(self) -> dict[str, str]:
        """The wildcards with which paths are filled in: the binding, and {exp} where the rule has it."""
        general = EXP in wildcards(next(iter(self.rule.outputs.values())))
        return {**self.binding, EXP: self.experiment} if general else dict(self.binding)

    @cached_property
    def outputs(self) -> dict[str, str]:
        """name → project path of every target of this binding."""
        values = self.values
        return {name: fill(pattern, values) for name, pattern in self.rule.outputs.items()}

    @cached_property
    def node(self) -> str:
        """The name of this binding: the path of its first target (all outputs of one binding are one node)."""
        return next(iter(self.outputs.values()))


@frozen
class RuleFile:
    """What one loaded rule file declares: rules, groups, and the built-in rules that give way to the user's."""

    rules: tuple[Rule, ...] = ()
    groups: Mapping[str, tuple[list[str], Where]] = field(default_factory=dict)
    fallbacks: tuple[Rule, ...] = ()


@dataclass
class _Table:
    """The rules of one experiment: targets without wildcards by path, the others as a list."""

    literal: dict[str, list[Rule]] = field(default_factory=dict)
    patterns: list[tuple[str, Rule]] = field(default_factory=list)

    def add(self, rule: Rule, experiment: str) -> None:
        for pattern in rule.outputs.values():
            bound = fill(pattern, {EXP: experiment}) if experiment or EXP in wildcards(pattern) else pattern
            if wildcards(bound):
                self.patterns.append((bound, rule))
            else:
                rules = self.literal.setdefault(bound, [])
                if rule not in rules:
                    rules.append(rule)


class Rulebook:
    """Finds the one rule of a path. `load(experiment)` reads a rule file; "" is rules.py."""

    def __init__(self, known: Iterable[str], load: Callable[[str], RuleFile]) -> None:
        self.experiments = list(known)
        self._load = load
        self._files: dict[str, RuleFile] = {}
        self._tables: dict[str, tuple[_Table, _Table]] = {}
        self._found: dict[str, Match] = {}
        self.temps = False
        """Whether a rule that was read makes temporary targets."""

    def file(self, experiment: str) -> RuleFile:
        """The loaded rule file of an experiment. Raises RuleError if it cannot be loaded."""
        if experiment not in self._files:
            self._files[experiment] = self._load(experiment)
            self.temps |= any(rule.options.get("temp") for rule in self._files[experiment].rules)
        return self._files[experiment]

    def rules(self, experiment: str) -> list[Rule]:
        """All rules that can make targets of an experiment, built-in ones last."""
        own = self.file(experiment)
        general = self.file("") if experiment else RuleFile()
        user = [*own.rules, *(rule for rule in general.rules if _serves(rule, experiment))]
        if not experiment:
            user = [rule for rule in user if _serves(rule, "")]
        return [*user, *own.fallbacks]

    def matches(self, path: str) -> bool:
        """Whether exactly one rule makes `path`."""
        try:
            self.find(path)
        except RuleError:
            return False
        return True

    def know(self, matches: Iterable[Match]) -> None:
        """Take these matches for found: the rule files are known to be those that were read when they were.

        Should a rule be needed that is not among them, the files are read.
        """
        for known in matches:
            self._found.update(dict.fromkeys(known.outputs.values(), known))

    def find(self, path: str) -> Match:
        """The match of a generated path. Raises NoRule (with the nearest patterns) or TwoRules."""
        if path in self._found:
            return self._found[path]
        experiment = experiment_of(path)
        if experiment is None or (experiment and experiment not in self.experiments):
            experiment = ""
        main, fallback = self._table(experiment)
        found = self._candidates(main, path, experiment) or self._candidates(fallback, path, experiment)
        if not found:
            raise self._no_rule(path, experiment)
        best = self._best(found, path)
        self._found[path] = best
        return best

    def _table(self, experiment: str) -> tuple[_Table, _Table]:
        if experiment not in self._tables:
            main, fallback = _Table(), _Table()
            fallbacks = self.file(experiment).fallbacks
            for rule in self.rules(experiment):
                (fallback if rule in fallbacks else main).add(rule, experiment)
            self._tables[experiment] = main, fallback
        return self._tables[experiment]

    def _candidates(self, table: _Table, path: str, experiment: str) -> list[tuple[str, Match]]:
        found: list[tuple[str, Match]] = []
        for folder in (path, *_folders(path)):
            for rule in table.literal.get(folder, ()):
                found.append((folder, Match(rule, {}, experiment, path[len(folder) :])))
        for pattern, rule in table.patterns:
            matched: Matched | None = match(pattern, path)
            if matched is not None and matched.binding.get(EXP, experiment) == experiment:
                binding = {name: value for name, value in matched.binding.items() if name != EXP}
                found.append((pattern, Match(rule, binding, experiment, matched.inside)))
        return found

    def _best(self, found: list[tuple[str, Match]], path: str) -> Match:
        experiment = found[0][1].experiment
        whole = [one for one in found if not one[1].inside]
        inside = [one for one in found if one[1].inside]
        if whole and inside:
            raise TwoRules(
                f"{short(path, experiment)} lies in a folder target, and another rule makes it too",
                [
                    (f"rule {index}", f"{short(pattern, experiment)}   {m.rule.where}")
                    for index, (pattern, m) in enumerate(inside + whole, 1)
                ],
                ["a folder target owns its folder: give one of the two another path"],
            )
        ranked = sorted(found, key=lambda one: (-literal_length(one[0]), len(wildcards(one[0]))))
        first, *rest = ranked
        ties = [
            one
            for one in rest
            if (literal_length(one[0]), len(wildcards(one[0]))) == (literal_length(first[0]), len(wildcards(first[0])))
            and one[1].rule is not first[1].rule
        ]
        if ties:
            raise TwoRules(
                f"two rules make {short(path, experiment)}",
                [
                    (f"rule {index}", f"{short(pattern, experiment)}   {m.rule.where}")
                    for index, (pattern, m) in enumerate([first, *ties], 1)
                ],
                ["make one pattern more specific, or rename one of the outputs"],
            )
        return first[1]

    def _no_rule(self, path: str, experiment: str) -> NoRule:
        if experiment_of(path) not in (experiment, None):
            return no_experiment(path, experiment_of(path) or "", self.experiments)
        patterns = {p: rule for rule in self.rules(experiment) for p in rule.outputs.values()}
        facts: list[tuple[str, object]] = []
        for pattern in nearest(path, patterns):
            facts.append(
                ("nearest", f"{short(fill(pattern, {EXP: experiment}), experiment)}   {patterns[pattern].where}")
            )
        if not facts:
            facts.append(("rules", "none in this experiment" if experiment else "none in rules.py"))
        advice = "correct the name, or write a rule for it"
        if "#" in path:
            advice = "a slice (file#key) is taken of a .json, .csv or .tsv file"
        return NoRule(f"no rule makes {short(path, experiment)}", [("target", path), *facts], [advice])


def no_experiment(written: str, name: str, known: Sequence[str]) -> NoRule:
    """The error for a path of an experiment that is not in this worktree."""
    import difflib

    near = difflib.get_close_matches(name, known, 3, 0.5)
    rest = [other for other in known if other not in near]
    shown = [*near, *rest][:12] + ([f"and {len(known) - 12} more"] if len(known) > 12 else [])
    return NoRule(
        f"there is no experiment {name} in this worktree",
        [("path", written), ("there are", "\n".join(shown) if len(shown) > 1 else "".join(shown) or "none")],
        [
            "correct the name, or check out the branch that has it: its results are made here from its script",
            "what an experiment has published cannot be taken in this version; that comes later",
            *(
                ["a file whose own name has a colon has to lie in a folder: data/a:b.csv"]
                if not name[:4].isdigit()
                else []
            ),
        ],
    )


def nearest(path: str, patterns: Iterable[str], count: int = 3) -> list[str]:
    """The patterns that look most like `path`, best first."""
    import difflib

    def likeness(pattern: str) -> float:
        return difflib.SequenceMatcher(None, path, re.sub(r"\{[^{}]*\}", "", pattern)).ratio()

    return sorted(patterns, key=likeness, reverse=True)[:count]


def _serves(rule: Rule, experiment: str) -> bool:
    """Whether a rule makes targets of this experiment: its own script's do, rules.py's with {exp} or its very name."""
    if rule.home == experiment and experiment:
        return True
    if rule.home:
        return False
    first = next(iter(rule.outputs.values()))
    if EXP in wildcards(first):
        return bool(experiment)
    return (experiment_of(first) or "") == experiment or (
        bool(experiment) and first.startswith(generated_folder(experiment) + "/")
    )


def _folders(path: str) -> list[str]:
    """The folders that hold `path`, innermost first, each with its closing slash."""
    parts = path.rstrip("/").split("/")
    return ["/".join(parts[:count]) + "/" for count in range(len(parts) - 1, 0, -1)]

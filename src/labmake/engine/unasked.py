"""Rules that nothing asks for: of what a build without targets reaches, none is made by them, or nothing reads it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from labmake.data.slices import split_slice
from labmake.engine.build import Build
from labmake.engine.patterns import wildcards
from labmake.engine.rulebook import EXP, Match
from labmake.engine.services import Services
from labmake.errors import LabmakeError
from labmake.frozen import frozen
from labmake.layout import short
from labmake.model import Rule


@frozen
class Unasked:
    """A rule, its first target or pattern as it is written, and why nothing asks for it."""

    rule: Rule
    target: str
    why: str


def unasked(services: Services, build: Build, experiment: str) -> list[Unasked]:
    """The rules of an experiment's own script that nothing asks for, judged by a build without targets that is done.

    Rules that say default=False are asked for by name, and those of rules.py may serve another experiment.
    """
    outcome = build.outcome
    nodes = {*outcome.made, *outcome.would, *outcome.unknown, *outcome.failed, *outcome.skipped}
    reached = {match.rule.digest for match in _matches(services, nodes)}
    read = set(_read(services, build, nodes))
    return [
        Unasked(rule, short(next(iter(rule.outputs.values())), experiment), why)
        for rule in services.rulebook.file(experiment).rules
        if rule.options.get("default") is not False and (why := _why(rule, reached, read, experiment))
    ]


def _why(rule: Rule, reached: Collection[str], read: Collection[str], experiment: str) -> str:
    if rule.digest not in reached:
        many = any(name != EXP for name in wildcards(next(iter(rule.outputs.values()))))
        return (
            "no target of a build without targets matches it" if many else "nothing of a build without targets needs it"
        )
    if rule.address and Match(rule, {}, experiment).node not in read:
        return "nothing reads this source"
    return ""


def _matches(services: Services, nodes: Iterable[str]) -> Iterator[Match]:
    for node in nodes:
        try:
            yield services.rulebook.find(node)
        except LabmakeError:
            continue


def _read(services: Services, build: Build, nodes: Iterable[str]) -> Iterator[str]:
    """The nodes of what others ask for, by their facts and by those of what was decided now."""
    for node in nodes:
        fact = build.fact(node)
        keys = [key for group in fact.groups for key, _ in group] if fact is not None else []
        for key in keys:
            path = key.partition(" ")[2] if key.startswith("?") else key
            cut = split_slice(path)
            for match in _matches(services, [cut[0] if cut else path]):
                if match.node != node:
                    yield match.node

"""What targets may need, judged by the rules alone: the look ahead before anything runs.

It finds the sources to compare with their pins first, and the functions and files that do not exist. Nothing is
planned for it; a rule that plans may need any source of its experiment, and what a plan decides is seen when it does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from labmake.data.slices import split_slice
from labmake.engine.actions import bind
from labmake.engine.nodes import code_key
from labmake.engine.patterns import fill, wildcards
from labmake.engine.questions import code_closure
from labmake.engine.rulebook import Match
from labmake.engine.services import Services
from labmake.errors import LabmakeError
from labmake.layout import GENERATED, expand
from labmake.model import Each, Find


def reachable(services: Services, targets: Iterable[str], among: Collection[str] | None = None) -> list[Match]:
    """One match of every rule that targets may need; `among` these paths alone, if given."""
    found: dict[tuple[str, str], Match] = {}
    waiting = [path for path in targets if path.startswith(f"{GENERATED}/")]
    while waiting:
        path = waiting.pop()
        if among is not None and path not in among:
            continue
        try:
            match = services.rulebook.find(path)
        except LabmakeError:
            continue  # told, with its context, when it is asked for
        key = (match.rule.digest, match.experiment)
        if key not in found:
            found[key] = match
            if match.rule.step is not None:
                waiting.extend(path for path in _inputs(match) if path.startswith(f"{GENERATED}/"))
            elif match.rule.plan is not None:
                waiting.extend(all_sources(services, match.experiment))
    return list(found.values())


def sources(matches: Iterable[Match]) -> list[str]:
    """The targets of the sources among matches."""
    return [match.node for match in matches if match.rule.address]


def all_sources(services: Services, experiment: str) -> list[str]:
    """The targets of all sources of an experiment."""
    return [Match(rule, {}, experiment).node for rule in services.rulebook.rules(experiment) if rule.address]


def recipe_errors(services: Services, matches: Iterable[Match]) -> list[LabmakeError]:
    """What is wrong with recipes that name no wildcard: files and functions that do not exist, syntax errors."""
    errors: list[LabmakeError] = []
    for match in matches:
        step = match.rule.step
        if step is None or "{" in step.recipe.text + step.recipe.function or step.recipe.kind == "sh":
            continue
        try:
            recipe, _ = bind(step, match.binding)
            code_closure(services, code_key(step, recipe, match)[6:])
        except LabmakeError as error:
            error.where = error.where or match.rule.where
            errors.append(error)
    return errors


def _inputs(match: Match) -> Iterator[str]:
    """Paths that stand for the inputs of a rule: wildcards are filled in, those of each with a stand-in."""
    assert match.rule.step is not None
    for spec in match.rule.step.inputs.values():
        for written in _written(spec):
            try:
                path = fill(written, match.values)
                path = fill(path, dict.fromkeys(wildcards(path), "0"))
                cut = split_slice(path)
                yield expand(cut[0] if cut else path, match.rule.home)
            except LabmakeError:
                continue


def _written(spec: Any) -> Iterator[str]:
    if isinstance(spec, str):
        yield spec
    elif isinstance(spec, Each):
        yield spec.pattern
        for values in spec.over.values():
            if isinstance(values, (str, Find)):
                yield from _written(values)
    elif isinstance(spec, Find):
        yield spec.pattern
    elif isinstance(spec, dict):
        yield from (path for path in spec.values() if isinstance(path, str))
    elif isinstance(spec, (list, tuple)):
        yield from (path for path in spec if isinstance(path, str))

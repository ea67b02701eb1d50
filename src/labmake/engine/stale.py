"""Stale targets: after a complete default build, what this worktree made before and what no longer exists is removed.

A target exists if a rule matches and its plan succeeds: a slice whose key is gone, a renamed rule, and all that need
such a target do not. Facts that the build did not visit are decided again without running anything; a target that
would run, fails otherwise or cannot be known stays. Edited files stay. Blobs stay, so a target that comes back is
restored.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from labmake.engine import outputs as places
from labmake.engine.build import Build, is_missing
from labmake.engine.plan import Failed
from labmake.engine.runner import Executor
from labmake.engine.services import Services, Silent
from labmake.errors import LabmakeError, NoRule, StoreError, TwoRules
from labmake.layout import generated_folder
from labmake.model import Fact


def remove_stale(services: Services, done: Build, experiment: str, among: Collection[str] | None = None) -> list[str]:
    """Remove the stale targets of an experiment (`among` these nodes, if given); returns their paths."""
    prefix = f"{generated_folder(experiment)}/" if experiment else ""
    known = dict.fromkeys([*done.recorded, *services.state.failures()] if among is None else [*among, *done.dropped])
    nodes = [node for node in known if node.startswith(prefix) and node not in done.outcome.made]
    if not nodes:
        return []
    quiet = replace(services, reporter=Silent())  # what no longer exists fails here, and that is no error
    probe = Build(quiet, replace(done.options, dry=True, force=frozenset(), fail_fast=False), _never)
    probe.outcome.made.update(done.outcome.made)  # answers for second outputs and for files inside folders
    gone: list[str] = []
    dropped: list[str] = []
    for node in nodes:
        if _exists(services, probe, node):
            continue
        fact = done.fact(node)
        if fact is not None:
            gone += places.remove(services, _without_living(services, done, fact))
        dropped.append(node)
    services.state.drop_failures(dropped)
    done.forget(dropped)
    return gone


def _exists(services: Services, probe: Build, node: str) -> bool:
    try:
        match = services.rulebook.find(node)
    except NoRule:
        return False
    except TwoRules:
        return True
    if match.node != node:
        return False  # another rule's node now makes this path
    (result,) = probe.bring([node])
    if isinstance(result, Failed) and isinstance(result.error, StoreError):
        raise result.error  # what could not be looked at does not stay by mistake
    return not is_missing(result)


def _without_living(services: Services, done: Build, fact: Fact) -> Fact:
    """The fact without paths that another node has made, in this build or before."""
    living = {path for made in done.outcome.made.values() for path in made.outputs}
    outputs = {
        path: placed
        for path, placed in fact.outputs.items()
        if path not in living and not _is_of_another(services, done, path, fact.node)
    }
    return replace(fact, outputs=outputs)


def _is_of_another(services: Services, done: Build, path: str, node: str) -> bool:
    try:
        owner = services.rulebook.find(path).node
    except LabmakeError:
        return False
    fact = done.fact(owner) if owner != node else None
    return fact is not None and path in fact.outputs


def _never() -> Executor:
    raise AssertionError("a dry build runs nothing")

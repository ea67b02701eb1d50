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
from labmake.engine.runner import Executor
from labmake.engine.services import Services, Silent
from labmake.errors import NoRule, TwoRules
from labmake.layout import generated_folder
from labmake.model import Fact


def remove_stale(services: Services, done: Build, experiment: str, among: Collection[str] | None = None) -> list[str]:
    """Remove the stale targets of an experiment (`among` these nodes, if given); returns their paths."""
    prefix = f"{generated_folder(experiment)}/" if experiment else ""
    known = dict.fromkeys([*done.recorded, *services.state.failures()] if among is None else among)
    nodes = [node for node in known if node.startswith(prefix) and node not in done.outcome.made]
    gone = [path for fact in done.dropped for path in places.remove(services, _without_living(done, fact))]
    if not nodes:
        return gone
    quiet = replace(services, reporter=Silent())  # what no longer exists fails here, and that is no error
    probe = Build(quiet, replace(done.options, dry=True, force=frozenset(), fail_fast=False), _never)
    probe.outcome.made.update(done.outcome.made)  # answers for second outputs and for files inside folders
    dropped: list[str] = []
    for node in nodes:
        if _exists(services, probe, node):
            continue
        fact = done.fact(node)
        if fact is not None:
            gone += places.remove(services, _without_living(done, fact))
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
    return not is_missing(result)


def _without_living(done: Build, fact: Fact) -> Fact:
    """The fact without paths that another node of this build has made."""
    living = {path for made in done.outcome.made.values() for path in made.outputs}
    return replace(fact, outputs={path: placed for path, placed in fact.outputs.items() if path not in living})


def _never() -> Executor:
    raise AssertionError("a dry build runs nothing")

"""The price of a build, told before its first step runs: how many steps, how long, and why they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from labmake.engine.build import Build
from labmake.engine.nodes import Run
from labmake.engine.services import Services
from labmake.engine.times import Times
from labmake.engine.why import Reason, differences, told
from labmake.errors import Where, printable
from labmake.frozen import frozen

EXPLAINED = 32
"""Steps whose causes are compared to find the most frequent one: each costs some reads of the store."""


@frozen
class Price:
    """What a build will come to. `steps` will run, `more` depend on them and may have to; `seconds` of wall clock for
    all that were ever timed, `untimed` were not; `because` is the most frequent cause, in words."""

    steps: int
    more: int
    seconds: float
    untimed: int
    because: str


def price(services: Services, build: Build, times: Times, budget: float) -> Price | None:
    """The price of what is left of a build; None if that takes `budget` seconds at most."""
    count, rest = times.left({})
    if rest.seconds <= budget:
        return None
    decided = {node: run for node, run in build.left.items() if run is not None}
    return Price(len(decided), count - len(decided), rest.seconds, rest.untimed, _cause(services, build, decided))


def _cause(services: Services, build: Build, decided: Mapping[str, Run]) -> str:
    """The most frequent first cause for which steps run; of equally frequent ones that of the earliest."""
    causes: Counter[str] = Counter()
    for node, run in list(decided.items())[:EXPLAINED]:
        fact, action = build.fact(node), services.actions.get(node)
        reasons = differences(services, fact, action) if fact is not None and action is not None else []
        where = services.rulebook.find(node).rule.where
        causes[in_words(reasons[0], where) if reasons else _plain(run.why)] += 1
    if not causes:
        return ""
    first = causes.most_common(1)[0][0]
    others = len(causes) - 1
    return first + (f" (and {others} other cause{'s' * (others > 1)})" if others else "")


def _plain(why: str) -> str:
    return {"never made here": "they were never made here", "forced": "you asked for it (-f)"}.get(why, why)


def in_words(reason: Reason, where: Where) -> str:
    """A reason as the end of a sentence: `src/train.py:88 changed`. `where` is the rule of the step."""
    subject = printable(reason.subject).replace("\n", " ")
    if reason.kind == "input":
        return f"{subject.partition(': ')[2] or subject} changed"
    if reason.kind == "code":
        return f"{subject} changed"
    if reason.kind == "action":
        return "they were " + subject
    if reason.kind in ("recipe", "text"):
        return f"the recipe at {where} changed"
    if reason.kind == "environment":
        return printable(told(reason)) if subject else "the environment changed"
    old, new = (printable(value)[:40] or "nothing" for value in (reason.old, reason.new))
    return f"{subject or reason.kind} changed from {old} to {new}"

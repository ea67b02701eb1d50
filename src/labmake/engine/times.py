"""Expected times: what a step took when it last ran, else what others of its rule took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from labmake.engine.build import Build
from labmake.engine.jobs import request
from labmake.engine.patterns import compiled, fill, wildcards
from labmake.engine.rulebook import EXP, Match
from labmake.engine.services import Services
from labmake.executors.resources import Request
from labmake.frozen import frozen

LOOKED_UP = 32
"""Steps of one rule whose own last time is looked up (50 µs each); the mean of these stands for the others."""

SIBLINGS = 8
"""Recorded steps of a rule from which the time of one that never ran is guessed."""

ENOUGH = 3
"""Steps of a rule that have run in this build, from which on they count more than what was recorded before."""


@dataclass(slots=True)
class _Mean:
    seconds: float = 0.0
    count: int = 0

    def add(self, seconds: float) -> None:
        self.seconds += seconds
        self.count += 1

    @property
    def value(self) -> float | None:
        return self.seconds / self.count if self.count else None


@frozen
class Rest:
    """The time that steps will take: `seconds` of wall clock for those that were ever timed, and how many were not."""

    seconds: float
    untimed: int


class Times:
    """The expected seconds of the nodes of one build, from the traces of what made them before. Used by one thread."""

    def __init__(self, services: Services, build: Build) -> None:
        self._services, self._build = services, build
        self._own: dict[str, float | None] = {}
        self._recorded: dict[str, _Mean] = {}
        self._recent: dict[str, _Mean] = {}

    def expected(self, node: str) -> float | None:
        """How many seconds a node's step will take; None if neither it nor any of its rule was ever timed here."""
        match = self._services.rulebook.find(node)
        if match.rule.address:
            return 0.0
        pattern = _pattern(match)
        mean = self._recorded.get(pattern)
        if mean is None:
            mean = self._recorded[pattern] = _Mean()
        if node not in self._own and mean.count < LOOKED_UP:
            own = self._own[node] = self.measured(node)
            if own is not None:
                mean.add(own)
            elif not mean.count:
                for sibling in self._siblings(pattern):
                    mean.add(sibling)
        own = self._own.get(node)
        if own is not None:
            return own
        recent = self._recent.get(pattern)
        if recent is not None and (recent.count >= ENOUGH or not mean.count):
            return recent.value
        return mean.value

    def typical(self, pattern: str) -> float | None:
        """How many seconds the recorded steps took whose node matches a pattern, on average; None if there are none."""
        found = self._siblings(pattern)
        return sum(found) / len(found) if found else None

    def measured(self, node: str) -> float | None:
        """How many seconds a node's step took when it made what this worktree has; None if that is not known."""
        fact = self._build.fact(node)
        if fact is None or fact.action.startswith("source"):
            return None
        trace = self._services.blobs.trace(fact.action)
        return trace.seconds if trace is not None else None

    def learn(self, node: str, seconds: float) -> None:
        """A step of this build has ended."""
        self._recent.setdefault(_pattern(self._services.rulebook.find(node)), _Mean()).add(seconds)

    def left(self, elapsed: Mapping[str, float]) -> tuple[int, Rest]:
        """How many nodes of the build are not done, and what they will take; `elapsed` as for `rest`."""
        left = self._build.left
        booked = {node: run.request if run is not None else None for node, run in left.items()}
        return len(left), self.rest(booked, self._build.options.jobs, elapsed)

    def rest(self, nodes: Mapping[str, Request | None], jobs: int, elapsed: Mapping[str, float] | None = None) -> Rest:
        """What it takes to run `nodes` (with what they book, if that is decided), `jobs` at once.

        `elapsed` holds the seconds for which nodes have been running.
        """
        loads: list[tuple[float, Request]] = []
        untimed = 0
        for node, booked in nodes.items():
            seconds = self.expected(node)
            if seconds is None:
                untimed += 1
                continue
            seconds = max(seconds - (elapsed or {}).get(node, 0.0), 0.0)
            loads.append((seconds, booked or self._booked(node)))
        return Rest(wall_clock(loads, jobs), untimed)

    def _booked(self, node: str) -> Request:
        step = self._services.rulebook.find(node).rule.step
        return request(step.options) if step is not None else Request()

    def _siblings(self, pattern: str) -> list[float]:
        """The times of a few recorded nodes of a rule, spread over all of them."""
        if not wildcards(pattern):
            return []
        expression = compiled(pattern)
        nodes = [node for node in self._build.recorded if expression.fullmatch(node)]
        chosen = nodes[:: max(1, len(nodes) // SIBLINGS)][:SIBLINGS]
        return [seconds for node in chosen if (seconds := self.measured(node)) is not None]


def _pattern(match: Match) -> str:
    """What the nodes of one rule in one experiment have in common, also after the rule was edited."""
    return fill(next(iter(match.rule.outputs.values())), {EXP: match.experiment})


def wall_clock(loads: Iterable[tuple[float, Request]], jobs: int) -> float:
    """Seconds for steps of (seconds, what they book) on `jobs` processors: the longest, or the total if it is more.

    A lower bound of what any schedule needs, and good to a few percent when there are many more steps than jobs.
    """
    loads = list(loads)
    longest = max((seconds for seconds, _ in loads), default=0.0)
    total = sum(seconds * min(booked.cpus, jobs) for seconds, booked in loads) / jobs
    on_gpus = sum(seconds * booked.gpus for seconds, booked in loads)
    return max(longest, total, on_gpus / _gpus() if on_gpus else 0.0)


def _gpus() -> int:
    from labmake.executors.resources import gpu_indices

    return len(gpu_indices()) or 1

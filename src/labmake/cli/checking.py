"""`labmake check`: steps run twice, apart from all results; what differs is told, why, and what they stray to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing

from labmake.cli.asking import budget_seconds
from labmake.cli.building import available_cpus, bring, follow
from labmake.cli.checkreport import Report
from labmake.cli.events import VERSION, Events
from labmake.cli.progress import Progress
from labmake.cli.session import Session, default_targets, resolve, session
from labmake.engine.build import Build
from labmake.engine.check import Checker, Subject
from labmake.engine.nodes import Run
from labmake.engine.rulebook import Match
from labmake.engine.runner import Executor
from labmake.engine.services import Options, Silent
from labmake.engine.times import Times
from labmake.engine.unasked import unasked
from labmake.errors import INTERRUPTED, LabmakeError, Misuse, exit_code
from labmake.executors.local import own_folder
from labmake.executors.strace import strace
from labmake.frozen import frozen
from labmake.layout import short

TWICE = 2
"""Runs of a step that a check takes."""


@frozen
class Wishes:
    """What the command line of a check said."""

    targets: Sequence[str] = ()
    jobs: int = 0
    budget: str = "10m"
    experiment: str | None = None
    json: bool = False


def run_check(wishes: Wishes) -> int:
    """Check steps and tell what was found: 0 if all results are the same, 1 if something differs or fails."""
    start = time.monotonic()
    budget = budget_seconds(wishes.budget)
    told = Events() if wishes.json else Progress()
    try:
        with session(wishes.experiment, words=wishes.targets) as opened:
            told.experiment = opened.experiment
            return _run(opened, wishes, told, budget, start)
    except LabmakeError as error:
        if isinstance(told, Events):
            told.failed("", error)
            told.summary({}, time.monotonic() - start, error.code)
        raise
    except KeyboardInterrupt:
        if isinstance(told, Events):
            told.summary({"interrupted": True}, time.monotonic() - start, INTERRUPTED)
        raise


def _run(opened: Session, wishes: Wishes, told: Progress | Events, budget: float, start: float) -> int:
    report = Report(opened.experiment, told)
    jobs = wishes.jobs or available_cpus()
    if isinstance(told, Events):
        about = {"experiment": opened.experiment, "targets": list(wishes.targets), "jobs": jobs}
        told.tell("check-started", version=VERSION, **about)
    if not strace()[0]:
        report.note(f"reads outside of step folders and unused inputs are not looked for: {strace()[1]}")
    if wishes.targets:
        subjects, code = _asked(opened, wishes.targets, report, jobs, budget)
    else:
        subjects, code = _last_built(opened, report, jobs, budget)
    _check(opened, subjects, report, jobs, budget)
    return report.end(code, time.monotonic() - start)


def _check(opened: Session, subjects: Sequence[Subject], report: Report, jobs: int, budget: float) -> None:
    def executors(part: str) -> Executor:
        return opened.executor(jobs, part)

    folder = own_folder(opened.project.state / "steps")
    checker = Checker(opened.services, executors, folder, budget, report.note)
    report.checking(len(subjects))
    try:
        with closing(checker.check(subjects)) as verdicts:
            for verdict in verdicts:
                report.verdict(verdict)
    finally:
        checker.close()


def _subject(opened: Session, match: Match, run: Run) -> Subject:
    return Subject(match, run, opened.services.blobs.trace(run.job["action"]))


# What is asked for -------------------------------------------------------------------------------------------------


def _asked(
    opened: Session, words: Sequence[str], report: Report, jobs: int, budget: float
) -> tuple[list[Subject], int]:
    """The steps of targets, their inputs made first if they are missing; and the exit code of that.

    Raises KeyboardInterrupt, as all that a check begins with: a build takes an interrupt for itself.
    """
    services = opened.services
    matches = {match.node: match for match in map(services.rulebook.find, resolve(opened, words))}
    for match in matches.values():
        if match.rule.address:
            raise Misuse(
                f"{short(match.node, match.experiment)} is a source: no step makes it",
                [("comes from", match.rule.address), ("rule", match.rule.where)],
                ["name a target that a step makes"],
            )
    dry = opened.build(Options(jobs=jobs, dry=True))
    runs = {node: dry.prepare(node) for node in matches}
    code = 0
    if dry.outcome.interrupted:
        raise KeyboardInterrupt
    if None in runs.values():
        services.answers.clear()  # what is unknown in a dry run is known when it has been made
        services.reporter = report.told
        report.note("some inputs are not there, or not up to date: they are made first")
        runs, code = _made_first(opened, list(matches), report.told, jobs, budget)
        services.reporter = Silent()
    return [_subject(opened, matches[node], run) for node, run in runs.items() if run is not None], code


def _made_first(
    opened: Session, nodes: Sequence[str], told: Progress | Events, jobs: int, budget: float
) -> tuple[dict[str, Run | None], int]:
    """What would run for nodes, with their inputs made; and the exit code of making these."""
    build = opened.build(Options(jobs=jobs))
    follow(build, told, budget, False)
    runs: dict[str, Run | None] = {}

    def prepare(targets: Sequence[str]) -> None:
        for target in targets:
            if not build.outcome.interrupted:
                runs[target] = build.prepare(target)

    try:
        errors = bring(opened, build, nodes, prepare)
        for error in errors:
            told.failed("", error)
    finally:
        build.close()
        told.end()
    if build.outcome.interrupted:
        raise KeyboardInterrupt
    return runs, exit_code([*errors, *build.outcome.failed.values()])


def _last_built(opened: Session, report: Report, jobs: int, budget: float) -> tuple[list[Subject], int]:
    """The steps of the last build without targets that the budget allows, the shortest first; told is what is left out
    and which rules nothing asks for."""
    services = opened.services
    build = opened.build(Options(jobs=jobs, dry=True))
    build.bring(default_targets(opened))
    outcome = build.outcome
    for node in (*outcome.would, *outcome.unknown):
        report.left_out(node, "it is not up to date")
    for node in (*outcome.failed, *outcome.skipped):
        report.left_out(node, "it cannot be made")
    subjects = []
    for node, seconds in _affordable(opened, build, report, jobs, budget):
        run = build.prepare(node)
        if run is not None:
            subjects.append(_subject(opened, services.rulebook.find(node), run))
        else:
            report.left_out(node, "its inputs are not up to date", seconds)
    if outcome.interrupted:
        raise KeyboardInterrupt
    for one in unasked(services, build, opened.experiment):
        report.unasked(one)
    return subjects, 0


def _affordable(
    opened: Session, build: Build, report: Report, jobs: int, budget: float
) -> list[tuple[str, float | None]]:
    """The up to date steps, the shortest first, that can run twice within the budget (seconds on the clock)."""
    times = Times(opened.services, build)
    timed: list[tuple[float, str]] = []
    for node in build.outcome.made:
        if opened.services.rulebook.find(node).rule.address:
            continue
        seconds = times.measured(node)
        if seconds is None:
            report.left_out(node, "the store has no trace of it")
        else:
            timed.append((seconds, node))
    chosen: list[tuple[str, float | None]] = []
    spent = 0.0
    for seconds, node in sorted(timed):
        step = opened.services.rulebook.find(node).rule.step
        cpus = int(step.options.get("cpus", 1)) if step is not None else 1
        spent += TWICE * seconds * min(cpus, jobs) / jobs
        if max(spent, TWICE * seconds) > budget:
            report.left_out(node, "it would take longer than the budget (--budget)", seconds)
        else:
            chosen.append((node, seconds))
    return chosen

"""`labmake build`: bring targets up to date, in order: sources, then the rest, then stale targets away."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import click

from labmake.cli.progress import Progress
from labmake.cli.session import Session, default_targets, resolve, session
from labmake.engine.build import Build, Outcome
from labmake.engine.reach import reachable, recipe_errors, sources
from labmake.engine.services import Options
from labmake.engine.stale import remove_stale
from labmake.engine.watched import keep_snapshot
from labmake.errors import INTERRUPTED, DataChanged, LabmakeError, StepFailed, exit_code, format_error
from labmake.layout import short


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line of a build said."""

    targets: Sequence[str] = ()
    jobs: int = 0
    dry: bool = False
    force: bool = False
    experiment: str | None = None
    fail_fast: bool = False
    discard_edits: bool = False
    yes: bool = False
    quiet: bool = False
    question: str = ""
    """What gear 1 calls this command (see engine.snapshot); "" if it shall not answer it."""


def run_build(wishes: Wishes) -> int:
    """Build, tell what happened, return the exit code."""
    if wishes.discard_edits and not wishes.dry and not wishes.yes and sys.stdin.isatty():
        click.confirm("Edited outputs will be replaced (and set aside). Go on?", abort=True, err=True)
    start = time.monotonic()
    progress = Progress(quiet=wishes.quiet)
    with session(wishes.experiment, progress, words=wishes.targets) as opened:
        progress.experiment = opened.experiment
        targets = resolve(opened, wishes.targets) if wishes.targets else default_targets(opened)
        if not targets:
            click.echo(_nothing(opened), err=True)
            return 0
        build = opened.build(_options(opened, wishes, targets))
        try:
            errors = _bring(opened, build, targets)
            if errors:
                for error in errors:
                    click.echo(f"error: {format_error(error)}", err=True)
                return exit_code(errors)
            outcome = build.outcome
            complete = not wishes.targets and not wishes.dry and not outcome.failed and not outcome.interrupted
            gone = remove_stale(opened.services, build, opened.experiment) if complete else []
        finally:
            build.close()
            progress.end()
        for path in gone:
            click.echo(f"removed   {short(path, opened.experiment)}: it no longer exists", err=True)
        _tell(opened, outcome, wishes, time.monotonic() - start)
        good = not (wishes.dry or wishes.force or outcome.failed or outcome.interrupted)
        if good and wishes.question:
            keep_snapshot(opened.services, build, wishes.question, _up_to_date(len(outcome.made)))
        return INTERRUPTED if outcome.interrupted else exit_code(outcome.failed.values())


def _options(opened: Session, wishes: Wishes, targets: Sequence[str]) -> Options:
    force: set[str] = set()
    if wishes.force:
        force = {opened.services.rulebook.find(target).node for target in targets}
    return Options(
        jobs=wishes.jobs or available_cpus(),
        dry=wishes.dry,
        force=frozenset(force),
        discard_edits=wishes.discard_edits,
        fail_fast=wishes.fail_fast,
    )


def available_cpus() -> int:
    """The processors this process may use."""
    import os

    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _bring(opened: Session, build: Build, targets: Sequence[str]) -> list[LabmakeError]:
    """Look ahead, bring the sources, then the targets; returns errors that were found before anything ran."""
    ahead = reachable(opened.services, targets)
    errors = recipe_errors(opened.services, ahead)
    if errors:
        return errors
    wanted = sources(ahead)
    if wanted:
        build.bring(wanted)
        if any(isinstance(error, DataChanged) for error in build.outcome.failed.values()):
            return []
    build.bring(targets)
    return []


def _nothing(opened: Session) -> str:
    where = f"the experiment {opened.experiment}" if opened.experiment else "this project"
    return f"nothing to build: {where} has no rules without wildcards and no documents"


def _tell(opened: Session, outcome: Outcome, wishes: Wishes, seconds: float) -> None:
    if wishes.dry:
        _tell_dry(opened, outcome)
        return
    made, restored, same = outcome.count("ran"), outcome.count("restored"), outcome.count("fresh")
    parts = [
        f"{made} made" if made else "",
        f"{restored} from the store" if restored else "",
        f"{same} unchanged" if same else "",
    ]
    if outcome.failed:
        parts.append(f"{len(outcome.failed)} failed")
    if outcome.skipped:
        parts.append(f"{len(outcome.skipped)} not made, since they need what failed")
    if not (made or restored or outcome.failed or outcome.interrupted):
        click.echo(f"{_up_to_date(same)} ({seconds:.1f} s)", err=True)
        return
    words = ", ".join(part for part in parts if part)
    click.echo(f"{'interrupted: ' if outcome.interrupted else ''}{words or 'nothing made'} ({seconds:.1f} s)", err=True)
    if any(isinstance(error, StepFailed) for error in outcome.failed.values()):
        click.echo("`labmake failures` shows what failed; what succeeded is kept", err=True)


def _up_to_date(count: int) -> str:
    return f"up to date: {count} target{'s' * (count != 1)}"


def _tell_dry(opened: Session, outcome: Outcome) -> None:
    """What would happen, honest about what is not known yet."""
    for node, would in outcome.would.items():
        word = "would run" if would.how == "run" else "would restore"
        click.echo(f"{word.ljust(13)} {short(node, opened.experiment)}   {would.why}")
    for node, after in outcome.unknown.items():
        click.echo(
            f"{'then, maybe'.ljust(13)} {short(node, opened.experiment)}   after {short(after, opened.experiment)}"
        )
    runs = sum(would.how == "run" for would in outcome.would.values())
    unknown = f", then up to {len(outcome.unknown)} more that depend on their results" if outcome.unknown else ""
    click.echo(
        f"{runs} would run, {len(outcome.would) - runs} from the store, {outcome.count('fresh')} unchanged{unknown}"
    )

"""`labmake build`: bring targets up to date, in order: sources, then the rest, then stale targets away."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Collection, Sequence

import click

from labmake.cli.asking import Asking, budget_seconds
from labmake.cli.events import VERSION, Events
from labmake.cli.foreseen import send_foreseen, tell_foreseen
from labmake.cli.progress import Progress
from labmake.cli.session import Session, default_targets, resolve, session
from labmake.engine.build import Build, Outcome
from labmake.engine.reach import reachable, recipe_errors, sources
from labmake.engine.services import Options, Services
from labmake.engine.settings import Settings
from labmake.engine.stale import remove_stale
from labmake.engine.times import Times
from labmake.engine.watched import keep_snapshot
from labmake.engine.wave import Wave, keep_changed, keep_wave, spread
from labmake.errors import INTERRUPTED, DataChanged, LabmakeError, Restart, StepFailed, exit_code
from labmake.frozen import frozen
from labmake.layout import short

COLLECT_EVERY = 100_000
"""New objects after which cycles are looked for: a build of many steps makes millions that live until its end, and
looking through them every 700 takes a tenth of its time."""


@frozen
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
    json: bool = False
    budget: str = "10m"
    """How long a build may take without being asked for, as a duration."""
    settings: Sequence[str] = ()
    """Each a pattern of targets and what is set for them, joined by NUL."""
    question: str = ""
    """What gear 1 calls this command (see engine.snapshot); "" if it shall not answer it."""
    changed: str | None = None
    """The paths that gear 1 found changed, a line each; None if it could not tell."""
    seeded: bool = True
    """Whether the hash seed is fixed: plans and rule files are only run with it."""
    looked: Callable[[Services, Build], None] | None = None
    """Called when the build has ended, however it did; for `labmake watch`."""


def run_build(wishes: Wishes) -> int:
    """Build, tell what happened, return the exit code."""
    if wishes.discard_edits and not wishes.dry and not wishes.yes and sys.stdin.isatty():
        click.confirm("Edited outputs will be replaced (and set aside). Go on?", abort=True, err=True)
    start = time.monotonic()
    gc.set_threshold(COLLECT_EVERY)
    budget = budget_seconds(wishes.budget)
    told = Events() if wishes.json else Progress(quiet=wishes.quiet)
    try:
        with session(wishes.experiment, told, words=wishes.targets) as opened:
            told.experiment = opened.experiment
            return _build(opened, wishes, told, budget, start)
    except LabmakeError as error:
        if isinstance(told, Events):
            told.failed("", error)
            told.summary({}, time.monotonic() - start, error.code)
        raise


def _build(opened: Session, wishes: Wishes, told: Progress | Events, budget: float, start: float) -> int:
    wave = _wave(opened, wishes)
    targets = wave.targets if wave is not None else _targets(opened, wishes)
    options = _options(opened, wishes, targets)
    if isinstance(told, Events):
        about = {"experiment": opened.experiment, "targets": targets, "jobs": options.jobs, "dry": options.dry}
        told.tell("build-started", version=VERSION, **about)
    elif not targets and wave is None:
        click.echo(_nothing(opened), err=True)
        return 0
    build = opened.build(options, wave)
    times = follow(build, told, budget, wishes.yes)
    gone: list[str] = []
    try:
        errors = bring(opened, build, targets, build.bring, None if wave is None else wave.nodes)
        for warning in opened.services.environments.warnings():
            told.note(f"warning: {warning}")
        outcome = build.outcome
        good = not (errors or outcome.failed or outcome.interrupted)
        if good and not wishes.targets and not wishes.dry:
            gone = remove_stale(opened.services, build, opened.experiment, None if wave is None else wave.nodes)
        for error in errors:
            told.failed("", error)
        for pattern in options.settings.unused if good and not wishes.dry else ():
            told.note(f"--set {pattern}: no step of these had to run")
    finally:
        build.close()
        told.end()
        if wishes.looked is not None:
            wishes.looked(opened.services, build)
    code = INTERRUPTED if outcome.interrupted else exit_code([*errors, *outcome.failed.values()])
    seconds = time.monotonic() - start
    unseen = wave.total - len(outcome.made) if wave is not None and good else 0
    if isinstance(told, Events):
        _send(told, build, times, gone, len(errors), seconds, code)
    elif not errors:
        for path in gone:
            click.echo(f"removed   {short(path, opened.experiment)}: it no longer exists", err=True)
        if wishes.dry:
            tell_foreseen(opened, build, times)
        else:
            _tell(outcome, unseen, seconds)
    if good and wishes.question and not (wishes.dry or wishes.force or wishes.json):
        said = _up_to_date(len(outcome.made) + unseen)
        if wave is not None:
            keep_changed(opened.services, build, wave, wishes.question, said, bool(gone))
        elif keep_snapshot(opened.services, build, wishes.question, said):
            keep_wave(opened.services, build, wishes.question, targets)
    return code


def _wave(opened: Session, wishes: Wishes) -> Wave | None:
    """What the paths that gear 1 found changed can reach; None if everything has to be looked at.

    Raises Restart if rule files have to be run for it, and the hash seed is not fixed.
    """
    wave = None
    if wishes.changed is not None and wishes.question and not wishes.dry and not wishes.force:
        wave = spread(opened.services, wishes.question, wishes.changed.split("\n"))
    if not wishes.seeded and (wave is None or len(wave.matches) < len(wave.nodes)):
        raise Restart
    if wave is not None:
        opened.services.rulebook.know(wave.matches)
    return wave


def _targets(opened: Session, wishes: Wishes) -> list[str]:
    return resolve(opened, wishes.targets) if wishes.targets else default_targets(opened)


def follow(build: Build, told: Progress | Events, budget: float, yes: bool) -> Times:
    """Let what tells a build know the times that it expects, and tell a price above the budget."""
    times = Times(build.services, build)
    told.expected = times.expected
    if isinstance(told, Progress):
        told.foresee, told.learn = times.left, times.learn
    build.agree = Asking(build, times, told, budget, yes)
    return times


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
        settings=_settings(opened, wishes, targets),
    )


def _settings(opened: Session, wishes: Wishes, targets: Sequence[str]) -> Settings:
    if not wishes.settings:
        return Settings()
    from labmake.cli.setting import settings_of  # which few builds need

    return settings_of(opened, wishes.settings, targets)


def available_cpus() -> int:
    """The processors this process may use."""
    import os

    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def bring(
    opened: Session,
    build: Build,
    targets: Sequence[str],
    make: Callable[[Sequence[str]], object],
    among: Collection[str] | None = None,
) -> list[LabmakeError]:
    """Look ahead, `among` these paths alone if given, bring the sources, then `make` the targets; returns errors that
    were found before anything ran."""
    ahead = reachable(opened.services, targets, among)
    errors = recipe_errors(opened.services, ahead)
    if errors:
        return errors
    wanted = sources(ahead)
    if wanted:
        build.bring(wanted)
        if any(isinstance(error, DataChanged) for error in build.outcome.failed.values()):
            return []
    make(targets)
    return []


def _nothing(opened: Session) -> str:
    where = f"the experiment {opened.experiment}" if opened.experiment else "this project"
    return f"nothing to build: {where} has no rules without wildcards and no documents"


def _tell(outcome: Outcome, unseen: int, seconds: float) -> None:
    made, restored, same = outcome.count("ran"), outcome.count("restored"), outcome.count("fresh") + unseen
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


def _send(events: Events, build: Build, times: Times, gone: list[str], wrong: int, seconds: float, code: int) -> None:
    """What `_tell` and tell_foreseen tell, as events."""
    outcome = build.outcome
    for path in gone:
        events.target("removed", path)
    send_foreseen(build, events, times)
    counts = {
        "made": outcome.count("ran"),
        "restored": outcome.count("restored"),
        "unchanged": outcome.count("fresh"),
        "failed": len(outcome.failed) + wrong,
        "skipped": len(outcome.skipped),
        "would": len(outcome.would),
        "unknown": len(outcome.unknown),
    }
    events.summary({**counts, "interrupted": outcome.interrupted}, seconds, code)


def _up_to_date(count: int) -> str:
    return f"up to date: {count} target{'s' * (count != 1)}"

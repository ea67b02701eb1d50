"""What `labmake shell` and `labmake debug` begin with: the target's inputs are made and its step folder is laid."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from labmake.cli.asking import budget_seconds
from labmake.cli.building import available_cpus, bring, follow
from labmake.cli.progress import Progress
from labmake.cli.session import Session, session, step_of
from labmake.engine.jobs import failed_folder, variables
from labmake.engine.nodes import Run
from labmake.engine.outputs import stamp
from labmake.engine.rulebook import Match
from labmake.engine.services import Options
from labmake.errors import INTERRUPTED, LabmakeError, Misuse, exit_code
from labmake.executors.byhand import ByHand, booked, lay
from labmake.frozen import frozen
from labmake.layout import short
from labmake.store.digest import FileChanged


@frozen
class Laid:
    """A step laid for a person: its target's short name, what was laid, its job, and where the project's root is.

    `failed` is the folder that its last attempt left, "" if that did not fail.
    """

    name: str
    step: ByHand
    job: Mapping[str, Any]
    root: Path
    failed: str

    def relative(self, path: str | Path) -> str:
        """A path as it is shown: from the project's root, if it lies there."""
        inside = os.path.relpath(path, self.root)
        return str(path) if inside.startswith("..") else inside


def check_terminal(command: str) -> None:
    """Raises Misuse if there is nobody to talk with."""
    talks = [os.isatty(number) for number in (0, 1)]
    if not all(talks):
        raise Misuse(
            f"labmake {command} needs a terminal",
            [("input", _kind(talks[0])), ("output", _kind(talks[1]))],
            ["call it in a terminal; to run the step as always: labmake build -f TARGET"],
        )


def _kind(terminal: bool) -> str:
    return "a terminal" if terminal else "no terminal"


def laid(target: str, experiment: str | None, kept: bool) -> Laid | int:
    """Make what a target's step needs and lay its folder; the exit code if that could not be, which was told.

    The folder is removed by the next build if it is not `kept`, should this process be killed. Raises LabmakeError.
    """
    told = Progress()
    with session(experiment, told, words=[target]) as opened:
        told.experiment = opened.experiment
        match = step_of(opened, target)
        run = _run_of(opened, match, told)
        if isinstance(run, int):
            return run
        services = opened.services
        # Where a build of this process had its workers, whose folders are gone by now: swept when the process is.
        place = f"aside/{stamp(services)}" if kept else f"steps/{socket.gethostname()}-{os.getpid()}"
        base = services.project.state / place / "step"
        job = {**run.job, **booked(run.request, available_cpus())}
        try:
            step = lay(base, services.blobs, job, variables(services.project))
        except FileChanged as error:
            facts = [("file", str(error))]
            raise LabmakeError("a source changes while it is read", facts, ["try again when nothing writes to it"])
        failed = failed_folder(services, match.node) if match.node in services.state.failures() else ""
        failed = f"{failed}/folder" if failed and os.path.isdir(f"{failed}/folder") else ""
        return Laid(short(match.node, match.experiment), step, job, services.project.root, failed)


def _run_of(opened: Session, match: Match, told: Progress) -> Run | int:
    """What would run for a target, its inputs made; else the exit code."""
    build = opened.build(Options(jobs=available_cpus()))
    follow(build, told, budget_seconds(os.environ.get("LABMAKE_BUDGET") or "10m"), False)
    found: list[Run | None] = []
    try:
        errors = bring(opened, build, [match.node], lambda targets: found.append(build.prepare(*targets)))
        for error in errors:
            told.failed("", error)
    finally:
        build.close()
        told.end()
    if found and found[0] is not None:
        return found[0]
    return INTERRUPTED if build.outcome.interrupted else exit_code([*errors, *build.outcome.failed.values()])


def run_here(command: Sequence[str], folder: str, environment: Mapping[str, str]) -> int:
    """Run a program on this terminal and wait for it: its exit status, negative for a signal.

    Meanwhile Ctrl-C is the program's alone, and when the terminal goes or somebody ends this process the program is
    told so, and what has to be tidied up is. Raises Misuse if it cannot be started.
    """
    try:
        process = subprocess.Popen(command, cwd=folder, env=dict(environment))
    except OSError as error:
        facts: list[tuple[str, object]] = [("program", command[0]), ("reason", error.strerror)]
        raise Misuse("the program cannot be started", facts, ["install it, or correct its name"]) from None
    with _left_to(process):
        return process.wait()


@contextmanager
def _left_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGQUIT)}
    for number in (signal.SIGTERM, signal.SIGHUP):
        before[number] = signal.signal(number, lambda *_: process.send_signal(signal.SIGHUP))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def remove(step: ByHand) -> None:
    """Remove what was laid, whatever was done to it."""
    for folder, names, _ in os.walk(step.base):
        for name in names:  # a folder without its write bit would keep what it holds
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                os.chmod(path, 0o755)
    shutil.rmtree(step.base, ignore_errors=True)
    try:
        os.rmdir(step.base.parent)
    except OSError:
        pass


def tell(rows: Sequence[tuple[str, str]]) -> None:
    """Write aligned facts to the standard error."""
    for name, value in rows:
        click.echo(f"{name.ljust(9)} {value}", err=True)

"""`labmake peek`: what a running step has written to its outputs so far, as its step folder has it now."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from labmake.cli.following import POLL, running_step
from labmake.cli.session import Session, session, step_of
from labmake.cli.units import in_bytes, in_units, in_whole_units
from labmake.engine.jobs import failed_folder
from labmake.engine.rulebook import Match
from labmake.engine.services import Options
from labmake.errors import Misuse, NoRule, printable
from labmake.executors.running import Running, jobs_of
from labmake.frozen import frozen
from labmake.layout import short

CHUNK = 1 << 20


@frozen
class Written:
    """A file in a running step's outputs: its place in the step folder, bytes, and when it was last written."""

    place: str
    size: int
    when: float


def run_peek(target: str, path: str | None, experiment: str | None, follow: bool = False) -> int:
    """List what a target's running step has written, or copy one file of it to the standard output.

    With `follow`, go on with what is written to that file until the step ends.
    """
    if follow and path is None:
        raise Misuse("--follow follows one file", [], [f"name it: labmake peek -f {target} PATH"])
    with session(experiment, words=[target]) as opened:
        match = step_of(opened, target)
        name = short(match.node, match.experiment)
        step = running_step(opened.services, match.node)
        if step is None:
            if path is not None:
                raise _not_running(opened, match, name)
            click.echo(printable("\n".join([f"{name} is not running now", *_last_run(opened, match)])))
        elif path is None:
            _list(step, name)
        else:
            _print(step, name, path, follow, sys.stdout.buffer)
    return 0


def _list(step: Running, name: str) -> None:
    found = list(written(step))
    if step.job not in jobs_of(step.folder / "job"):
        click.echo(f"{printable(name)} has just ended: `labmake logs` shows what it printed")
        return
    now = time.time()
    click.echo(f"{printable(name)} runs for {in_whole_units(now - step.job['since'])} (process {step.process})")
    rows = [(one.place, in_bytes(one.size), f"{in_whole_units(max(0.0, now - one.when))} ago") for one in found]
    width = max((len(place) for place, _, _ in rows), default=0)
    for place, size, ago in rows:
        click.echo(f"  {printable(place).ljust(width)}  {size:>8}  {ago:>12}")
    if not rows:
        click.echo("  nothing is written to its outputs yet; `labmake logs -f` shows what it prints")


def written(step: Running) -> Iterator[Written]:
    """The files that a step has written to its outputs so far, by place."""
    for place in step.job["outputs"].values():
        for one in _below(step.job["folder"], place.rstrip("/")):
            try:
                found = os.lstat(os.path.join(step.job["folder"], one))
            except OSError:  # written and gone meanwhile
                continue
            yield Written(one, found.st_size, found.st_mtime)


def _below(folder: str, place: str) -> Iterator[str]:
    whole = os.path.join(folder, place)
    if not os.path.isdir(whole) or os.path.islink(whole):
        if os.path.lexists(whole):
            yield place
        return
    for base, folders, names in os.walk(whole):
        folders.sort()
        yield from (os.path.relpath(os.path.join(base, name), folder) for name in sorted(names))


def _print(step: Running, name: str, path: str, follow: bool, out: IO[bytes]) -> None:
    """Copy a file of the step folder as it is now. Raises Misuse, and NoRule if there is none."""
    file = _opened(step, path)
    if file is None:
        there = [one.place for one in written(step)][:12]
        facts = [("asked for", path), ("written so far", "\n".join(there) or "nothing")]
        advice = "name one of these, or a path in the folder target"
        raise NoRule(f"{name} has written no {printable(path)} yet", facts, [advice])
    with file:
        if out.isatty() and b"\0" in file.read(8192):
            size = in_bytes(os.fstat(file.fileno()).st_size)
            advice = "send it to a file or a program: labmake peek … > copy"
            raise Misuse("the file is no text for a terminal", [("file", path), ("size", size)], [advice])
        file.seek(0)
        while True:
            runs = follow and step.job in jobs_of(step.folder / "job")  # asked first: then the rest is read once more
            while data := file.read(CHUNK):
                out.write(data)
            out.flush()
            if not runs:
                return
            time.sleep(POLL)


def _opened(step: Running, path: str) -> IO[bytes] | None:
    """The file that a path means: within an output that is a folder, or from the step folder; a name that one has."""
    folder = os.path.realpath(step.job["folder"])
    bases = [os.path.join(folder, place) for place in step.job["outputs"].values() if place.endswith("/")]
    places = [one.place for one in written(step)]
    named = [os.path.join(folder, place) for place in places if os.path.basename(place) == path]
    for whole in (*(os.path.join(base, path) for base in (*bases, folder)), *(named if len(named) == 1 else ())):
        try:
            real = os.path.realpath(whole)
            if real.startswith(folder + os.sep) and stat.S_ISREG(os.stat(real).st_mode):
                return open(real, "rb")
        except (OSError, ValueError):
            continue
    return None


def _not_running(opened: Session, match: Match, name: str) -> Misuse:
    facts = [tuple(line.split(None, 1)) for line in _last_run(opened, match)]
    return Misuse(
        f"{name} is not running now", [(label, text) for label, text in facts], ["a file that is made is read"]
    )


def _last_run(opened: Session, match: Match) -> list[str]:
    """What is known of a target's last run, a fact a line."""
    services = opened.services
    lines: list[str] = []
    fact = opened.build(Options(dry=True)).fact(match.node)
    trace = services.blobs.trace(fact.action) if fact is not None else None
    if trace is not None:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(trace.when))
        lines.append(f"made      {when}, in {in_units(trace.seconds)}")
        lines += [f"result    {path}" for path in match.outputs.values()]
    if match.node in services.state.failures():
        folder = Path(failed_folder(services, match.node))
        lines.append("failed    when it last ran: `labmake failures`")
        if (folder / "folder").is_dir():
            lines.append(f"folder    {os.path.relpath(folder / 'folder', services.project.root)}")
    if lines:
        lines.append(f"log       `labmake logs {short(match.node, match.experiment)}`")
    return lines or ["made      never, here"]

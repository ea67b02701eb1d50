"""`labmake watch`: build, wait until something the build looked at changes, build again, until Ctrl-C.

Each build runs in a forked child, which imports the project's code as it is then, and tells what it looked at.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import click

from labmake.cli.building import Wishes, run_build
from labmake.engine.build import Build
from labmake.engine.services import Services
from labmake.engine.watched import looked_at
from labmake.errors import INTERRUPTED, LabmakeError, format_error, printable
from labmake.layout import SCRIPTS, Project, experiments, find_project

POLL = 0.5
"""Seconds between two looks at the files."""

Stats: TypeAlias = dict[str, tuple[int, int, int] | None]
"""Absolute path → (size, mtime_ns, inode); None if there is nothing."""


def run_watch(wishes: Wishes) -> int:
    """Build and watch until Ctrl-C; returns the exit code."""
    project = find_project(Path.cwd())
    known: Stats = _stats(_always(project))
    try:
        while True:
            before = _stats(known)
            code, paths = _build_apart(wishes)
            if code == INTERRUPTED:
                return INTERRUPTED
            # A file that is known already counts as it was before the build, which may have read it before an edit.
            known = {
                path: before.get(path, now) for path, now in _stats({*_always(project), *(paths or known)}).items()
            }
            click.echo(f"watching {len(known)} files and folders; Ctrl-C ends", err=True)
            changed = _wait(known)
            click.echo(printable(f"changed: {', '.join(_named(project, changed))}"), err=True)
            known = {**known, **_stats(known)}
    except KeyboardInterrupt:
        click.echo("", err=True)
        return 0


def _build_apart(wishes: Wishes) -> tuple[int, list[str] | None]:
    """Build in a child process: its exit code, and the paths that it looked at, None if it did not get so far."""
    reading, writing = os.pipe()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the child's while it builds
    try:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, before)
            os.close(reading)
            os._exit(_in_child(wishes, writing))
        os.close(writing)
        with open(reading, "rb") as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
    finally:
        signal.signal(signal.SIGINT, before)
    code = os.waitstatus_to_exitcode(status)
    return (INTERRUPTED if code < 0 else code), json.loads(told) if told else None


def _in_child(wishes: Wishes, writing: int) -> int:
    def tell(services: Services, build: Build) -> None:
        with open(writing, "wb") as pipe:
            pipe.write(json.dumps(sorted(looked_at(services, build))).encode())

    try:
        return run_build(replace(wishes, looked=tell))
    except LabmakeError as error:
        click.echo(f"error: {format_error(error)}", err=True)
        return error.code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except OSError as error:
        click.echo(f"error: {error}", err=True)
        return 5


def _always(project: Project) -> set[str]:
    """What decides on every build, also if a rule file could not be read."""
    root = str(project.root)
    paths = {os.path.join(root, name) for name in ("rules.py", SCRIPTS)}
    for name in experiments(project):
        folder = os.path.join(root, SCRIPTS, name)
        paths |= {folder, os.path.join(folder, "script.py")}
    return paths


def _stats(paths: Iterable[str]) -> Stats:
    found: Stats = {}
    for path in paths:
        try:
            seen = os.stat(path)
            found[path] = (seen.st_size, seen.st_mtime_ns, seen.st_ino)
        except OSError:
            found[path] = None
    return found


def _wait(known: Stats) -> list[str]:
    """Wait until something changes and nothing more does (an editor writes several files); returns what changed."""
    last = known
    while True:
        now = _stats(known)
        if now != known and now == last:
            return [path for path in known if now[path] != known[path]]
        last = now
        time.sleep(POLL)


def _named(project: Project, paths: list[str]) -> list[str]:
    root = f"{project.root}{os.sep}"
    files = [path for path in paths if not os.path.isdir(path)] or paths
    return [path.removeprefix(root) for path in files[:5]] + ([f"{len(files) - 5} more"] if len(files) > 5 else [])

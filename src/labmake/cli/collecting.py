"""`labmake gc`: tell what nobody needs any more and how much it is, ask, and take it away."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import click

from labmake.cli.units import in_bytes
from labmake.engine.jobs import failure_name
from labmake.errors import StoreError, format_error
from labmake.layout import Project, find_project
from labmake.store.gc import DAY, Known, Rubbish, survey, sweep
from labmake.store.live import digests_in
from labmake.store.sharing import alone
from labmake.store.state import peek


def run_gc(days: float, dry: bool, yes: bool) -> int:
    """Collect what no worktree has and nobody used for `days`; returns the exit code."""
    project = find_project(Path.cwd())
    rubbish = _survey(project, days)
    click.echo("\n".join(_told(rubbish, days)))
    if dry or not (rubbish.parts or rubbish.kept):
        return 0
    if not yes and sys.stdin.isatty():
        click.confirm("Remove it?", abort=True, err=True)
    with alone(project.state / "store", _waiting):
        rubbish = _survey(project, days)  # what was built while we asked is in use now
        refused = sweep(project.state, rubbish)
    for error in refused:
        facts = [("file", error.filename), ("reason", error.strerror)]
        wrong = StoreError("a file cannot be removed", facts, ["correct the permissions, and collect again"])
        click.echo(f"error: {format_error(wrong)}", err=True)
    if not refused:
        click.echo(f"removed {in_bytes(_size(rubbish))}")
    return StoreError.code if refused else 0


def _waiting() -> None:
    click.echo("waiting until running labmake commands have ended", err=True)


def _survey(project: Project, days: float) -> Rubbish:
    now = time.time()
    return survey(project.state, known(project, days, now), days, now)


def known(project: Project, days: float, now: float) -> Known:
    """What all worktrees of a project know; the state of one that is gone from this host counts for some days more.

    Raises StoreError if the state file of a worktree cannot be read.
    """
    roots: set[str] = set()
    failing: set[str] = set()
    abandoned: list[Path] = []
    for path in sorted((project.state / "state").glob("*.db")):
        idle = now - path.stat().st_mtime
        facts, nodes, root = peek(path)
        here = path.name.endswith(f"-{socket.gethostname()}.db")
        if here and root and not os.path.isdir(root) and idle >= days * DAY:
            abandoned.append(path)
            continue
        for text in facts:
            roots.update(digests_in(text.encode()))
        failing.update(failure_name(node) for node in nodes)
    return Known(roots, failing, abandoned)


def _told(rubbish: Rubbish, days: float) -> list[str]:
    """What may go, one kind a line, and the sum."""
    rows = [(part.what, len(part.paths), part.size) for part in rubbish.parts]
    if rubbish.kept:
        rows.insert(0, ("small results, traces and logs", rubbish.records, rubbish.size))
    if not rows:
        return [f"nothing to collect: all results are in use, or were in the last {days:g} days"]
    width = max(len(what) for what, _, _ in rows)
    lines = [f"{what.ljust(width)}  {count:>7}  {in_bytes(size):>9}" for what, count, size in rows]
    return [*lines, f"{'in all'.ljust(width)}  {'':>7}  {in_bytes(_size(rubbish)):>9}"]


def _size(rubbish: Rubbish) -> int:
    return rubbish.size + sum(part.size for part in rubbish.parts)

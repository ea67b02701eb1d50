"""`labmake init`: make a folder a project, and say for each file what was done."""

from __future__ import annotations

import os
import shlex
from datetime import date
from pathlib import Path

import click

from labmake.errors import printable
from labmake.experiments.scaffold import Did, missing_packages, scaffold


def run_init(folder: str) -> int:
    """Make `folder` a project, tell what was done and what comes next, return the exit code."""
    place = Path(os.path.abspath(folder))
    done = scaffold(place, date.today())
    width = max(len(did.how) for did in done)
    for did in done:
        note = f"   {did.note}" if did.note else ""
        click.echo(printable(f"{did.how.ljust(width)}  {did.path}{note}"))
    click.echo(printable(_end(place, done)))
    return 0


def _end(place: Path, done: list[Did]) -> str:
    """The last lines: whether anything changed, and what to type next."""
    if not any(did.how in ("made", "added to") for did in done):
        return "nothing to do: all of it was there"
    lines = [f"{place.name or place} is a labmake project"]
    missing = missing_packages() if any(did.path.endswith("/script.py") for did in done) else []
    if missing:
        lines.append(f"  → the sample experiment needs:  pip install {' '.join(missing)}")
    there = "" if place == Path.cwd() else f"cd {shlex.quote(str(place))} && "
    lines.append(f"  → build it:  {there}labmake")
    return "\n".join(lines)

"""`labmake shell`: a person's shell in the step folder of a target. Nothing of what it leaves becomes a result."""

from __future__ import annotations

import os

import click

from labmake.cli.byhand import Laid, check_terminal, laid, remove, run_here, tell
from labmake.cli.shells import line_of, start_of
from labmake.errors import Misuse, printable


def run_shell(target: str, experiment: str | None, keep: bool) -> int:
    """Lay a target's step and start a shell in it; returns the exit code, which is not that of the shell."""
    check_terminal("shell")
    found = laid(target, experiment, keep)
    if isinstance(found, int):
        return found
    step = found.step
    try:
        shell = os.environ.get("SHELL") or "bash"
        _tell_start(found, shell, keep)
        secrets = [name for name, value in found.job["env"].items() if value in found.job["secrets"]]
        words, variables = start_of(shell, step.base, step.folder, step.command, step.environment, secrets)
        try:
            run_here(words, step.folder, variables)
        except Misuse as error:
            error.todo = ["name another one: SHELL=bash labmake shell …"]
            raise
    finally:
        if not keep:
            remove(step)
    if keep:
        click.echo(f"kept      {found.relative(step.folder)}", err=True)
    return 0


def _tell_start(found: Laid, shell: str, keep: bool) -> None:
    rows = [
        ("folder", found.relative(found.step.folder)),
        ("command", printable(line_of(shell, found.step.command))),
    ]
    if found.failed:
        rows.append(("failed", f"when it last ran; what it left: {found.relative(found.failed)}"))
    click.echo(f"a shell in the step folder of {printable(found.name)}; `exit` leaves it", err=True)
    tell(rows)
    end = "the folder is kept" if keep else "the folder is removed when you leave"
    click.echo(f"nothing of what is written here becomes a result; {end}", err=True)

"""`labmake debug`: a target's step runs again on this terminal, with pdb where it fails. Nothing is recorded."""

from __future__ import annotations

from typing import Any

import click

from labmake.cli.byhand import Laid, check_terminal, laid, run_here, tell
from labmake.errors import StepFailed, printable
from labmake.executors.launch import missing_output
from labmake.executors.pystep import DEBUG

SHELL = ["bash", "-euo", "pipefail", "-c"]
"""How the command of an `sh` recipe begins, after a wrapper."""


def run_debug(target: str, experiment: str | None) -> int:
    """Run a target's step on the terminal; returns 0 if it ended well, 1 if not."""
    check_terminal("debug")
    found = laid(target, experiment, kept=True)
    if isinstance(found, int):
        return found
    step = found.step
    command = _command(step.command, found.job["step"])
    click.echo(f"running the step of {printable(found.name)} here", err=True)
    status = run_here(command, step.folder, step.environment)
    missing = missing_output(found.job, step.folder, step.code) if status == 0 else None
    tell(_end(found, status, missing))
    return 0 if status == 0 and missing is None else StepFailed.code


def _command(command: list[str], step: dict[str, Any] | None) -> list[str]:
    """The command of a step, in the form that shows most."""
    bash = len(command) - len(SHELL) - 1
    if step is None and command[bash:-1] == SHELL:
        return [*command[: bash + 1], "-x", *command[bash + 1 :]]
    if step is not None and step["recipe"]["kind"] in ("function", "python"):
        return [*command, DEBUG]
    return command


def _end(found: Laid, status: int, missing: dict[str, Any] | None) -> list[tuple[str, str]]:
    if status:
        ended = f"killed by signal {-status}" if status < 0 else f"with exit code {status}"
    elif missing:
        ended = f"well, but it did not write {missing['place']}"
    else:
        ended = "well"
    return [
        ("ended", ended),
        ("folder", found.relative(found.step.folder)),
        ("result", f"none is recorded: `labmake build {printable(found.name)}` makes it"),
    ]

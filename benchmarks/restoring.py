"""Deleted outputs: taken from labmake's store again, beside making them."""

from __future__ import annotations

import shutil
from pathlib import Path

import chains
from measure import Phases, Results, in_turn
from tools import build, check, lay

PROJECT = next(project for project in chains.PROJECTS if project.name == chains.WILDCARDS)


def cycle(base: Path, outputs: int, jobs: int) -> Phases:
    """Make the outputs, delete all that is generated, and build again; nothing may differ."""
    folder, count = base / "restoring", outputs // 2
    lay(PROJECT, folder, count, jobs, chains.inputs(count))
    phases: Phases = {}
    for phase in ("made", "restored"):
        shutil.rmtree(folder / "generated", ignore_errors=True)
        phases[phase] = build(PROJECT, folder, jobs)
        check(PROJECT, folder, chains.expected(count), phase)
    shutil.rmtree(folder)
    return phases


def compare(base: Path, outputs: int, jobs: int, runs: int) -> Results:
    return in_turn({PROJECT.name: lambda: cycle(base, outputs, jobs)}, runs)

"""The tools that are compared: how each is called, whether it is there, and a project laid out for it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from measure import ENVIRONMENT, Cost, Phases, Results, cost, in_turn

BESIDE = Path(sys.executable).parent
"""Where the environment of the benchmark has its programs."""

REDUN = "mkdir .redun; printf '[executors.default]\ntype = local\nmax_workers = {jobs}\n' > .redun/redun.ini"
"""Its settings: the default is twenty steps at once."""

SETTLE = 0.1
"""Seconds between a change of files and the next command, so that no tool has to doubt time stamps."""


@dataclass(frozen=True)
class Tool:
    """A tool: the words of its command, and commands that a fresh folder needs before it; with `{jobs}`."""

    name: str
    words: tuple[str, ...]
    prepare: tuple[tuple[str, ...], ...] = ()
    slow: bool = False


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("make", ("make", "-s", "-j{jobs}")),
        Tool("ninja", ("ninja", "--quiet", "-j{jobs}")),
        Tool("labmake", ("labmake", "-q", "-j", "{jobs}"), (("git", "init", "-q"),)),
        Tool("doit", ("doit", "-n", "{jobs}", "-v0")),
        Tool("snakemake", ("snakemake", "-c{jobs}", "-q", "all", "--"), slow=True),
        Tool("python", ("python", "loop.py")),
        Tool("dvc", ("dvc", "repro", "-q"), (("dvc", "init", "-q", "--no-scm"),), slow=True),
        Tool("redun", ("redun", "run"), (("bash", "-c", REDUN),), slow=True),
    )
}


@dataclass(frozen=True)
class Project:
    """A contender: what a tool's users would write to make N files, and where the files then lie.

    `files` gives path → text for N; `goal` are words that follow the command; `made` is the folder of the results.
    """

    name: str
    tool: str
    files: Callable[[int], Mapping[str, str]]
    goal: tuple[str, ...] = ()
    made: str = "out"


def program(name: str) -> str | None:
    """Where a program lies: in the benchmark's environment, else on the path."""
    return shutil.which(name, path=str(BESIDE)) or shutil.which(name, path=ENVIRONMENT.get("PATH"))


def absent(tool: str) -> str | None:
    """Why a tool cannot be run here; None if it can."""
    found = program(tool)
    if found is None:
        told = BESIDE.parent / f"absent-{tool}.txt"
        return told.read_text().strip() if told.exists() else "not installed"
    done = subprocess.run([found, "--version"], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    return None if done.returncode == 0 else f"`{tool} --version` fails"


def version(tool: str) -> str:
    """The version of a tool that is there, in one word."""
    words = [program(tool) or tool, "--version"]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else "of unknown version"


def lay(project: Project, folder: Path, count: int, jobs: int, inputs: Mapping[str, str]) -> None:
    """Write a project and its inputs into a fresh folder, as it lies before the first build."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in {**inputs, **project.files(count)}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for words in TOOLS[project.tool].prepare:
        called = [program(words[0]) or words[0], *(word.replace("{jobs}", str(jobs)) for word in words[1:])]
        subprocess.run(called, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    time.sleep(SETTLE)


def build(project: Project, folder: Path, jobs: int) -> Cost:
    """Build a project once; what it cost."""
    first, *rest = TOOLS[project.tool].words
    done = cost([program(first) or first, *(word.replace("{jobs}", str(jobs)) for word in rest), *project.goal], folder)
    time.sleep(SETTLE)
    return done


def check(
    project: Project, folder: Path, expected: Mapping[str, str], after: str, *, in_any_order: bool = False
) -> None:
    """End the benchmark unless all results are there with the right content: times of wrong results say nothing."""
    for name, text in expected.items():
        path = folder / project.made / name
        found = path.read_text() if path.is_file() else None
        if in_any_order and found is not None and sorted(found.splitlines()) == sorted(text.splitlines()):
            continue
        if found != text:
            what = "is missing" if found is None else f"holds {found[:60]!r} instead of {text[:60]!r}"
            sys.exit(f"{project.name}, {after}: {project.made}/{name} {what}; no times are told")


def compare(
    projects: Sequence[Project], cycle: Callable[[Project, int], Phases], size: int, runs: int, *, slow: bool
) -> tuple[Results, dict[str, str]]:
    """Run all that can be built here in turn (slow tools only if `slow`); and which are absent, and why."""
    asked = [project for project in projects if slow or not TOOLS[project.tool].slow]
    reasons = {project.name: absent(project.tool) for project in asked}
    there = [project for project in asked if reasons[project.name] is None]
    for project in there:
        cycle(project, 2)  # compiles the tool's bytecode and fills the page cache
    cycles = {project.name: partial(cycle, project, size) for project in there}
    return in_turn(cycles, runs), {name: reason for name, reason in reasons.items() if reason is not None}

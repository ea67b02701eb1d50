"""`labmake doctor`: facts about this machine and this project's store, and what is wrong with them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from labmake.cli.units import in_bytes
from labmake.errors import LabmakeError, Misuse, StoreError, printable
from labmake.executors.resources import gpu_indices
from labmake.executors.running import Running, is_stopped, running_steps
from labmake.frozen import frozen
from labmake.layout import Project, experiment_of, find_project, short
from labmake.seams import GRANULARITY, RealClock
from labmake.store.blobs import Blobs
from labmake.store.copying import create, reflink
from labmake.store.digest import digest_file
from labmake.store.filesystem import file_system, is_network, uses_lock_files
from labmake.store.index import MemoryIndex
from labmake.store.live import view
from labmake.store.localstate import place_of
from labmake.store.state import peek

SAMPLE = 200
"""Blobs of each kind that are verified: enough to find a disk that loses bytes, in about a second."""

LITTLE = 2 << 30
"""Free bytes below which there is a warning."""

SKEW = 2.0
"""Seconds between the clocks of machine and file system above which there is a warning."""


@frozen
class Finding:
    """A fact; `grade`: "" all well, "advice" could be better, "wrong" labmake does not work so."""

    label: str
    value: str
    advice: str = ""
    grade: str = ""


def run_doctor() -> int:
    """Print all findings, what is wrong with its advice; 0, or 5 if something is wrong."""
    wrong = False
    for title, findings in (("this machine", _machine()), ("this project", _project())):
        click.echo(title)
        for finding in findings:
            mark = {"": " ", "advice": "?", "wrong": "!"}[finding.grade]
            click.echo(printable(f"{mark} {finding.label.ljust(16)}  {finding.value}"))
            if finding.advice:
                click.echo(printable(f"    → {finding.advice}"))
            wrong = wrong or finding.grade == "wrong"
    click.echo("something is wrong" if wrong else "all well")
    return StoreError.code if wrong else 0


# This machine


def _machine() -> Iterator[Finding]:
    old = sys.version_info < (3, 11)
    python = f"{platform.python_version()}  {sys.executable}"
    yield Finding("python", python, "labmake needs 3.11" if old else "", "wrong" if old else "")
    yield Finding("labmake", importlib.metadata.version("labmake"))
    yield _package("pandoc", "pypandoc-binary", _pandoc)
    yield _package("typst", "typst", lambda: "")
    yield _package("fonts", "font-source-sans-pro", lambda: "Source Sans Pro")
    yield _program("git", ["git", "--version"], "results are kept in .labmake/ without it; install git")
    yield _program("bash", ["bash", "--version"], "sh(…) recipes need it")
    yield _program("R", ["Rscript", "--version"], "")
    yield _program("julia", ["julia", "--version"], "")
    gpus = gpu_indices()
    yield Finding("gpus", ", ".join(gpus) or "none")
    yield Finding("processors", f"{os.cpu_count()} on {platform.system()} {platform.machine()}")


def _package(label: str, name: str, more: Callable[[], str]) -> Finding:
    try:
        version = importlib.metadata.version(name)
        return Finding(label, f"{more() or label} ({name} {version})")
    except (importlib.metadata.PackageNotFoundError, OSError, ImportError) as error:
        return Finding(label, f"not there: {error}", f"documents need it: pip install {name}", "wrong")


def _pandoc() -> str:
    import pypandoc

    return f"pandoc {pypandoc.get_pandoc_version()}"


def _program(label: str, command: list[str], advice: str) -> Finding:
    """A program's first line about itself; without `advice` it may be missing."""
    path = shutil.which(command[0])
    if path is None:
        return Finding(label, "not there", advice, "advice" if advice else "")
    try:
        said = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(label, f"{path} does not run: {error}", advice, "advice")
    return Finding(label, f"{(said.stdout or said.stderr).strip().partition(chr(10))[0]}  {path}")


# This project


def _project() -> Iterator[Finding]:
    try:
        project = find_project(Path.cwd())
    except Misuse as error:
        yield Finding("project", error.what, *error.todo[:1])
        return
    yield Finding("root", str(project.root))
    yield Finding("state", str(project.state))
    try:
        project.state.mkdir(parents=True, exist_ok=True)
        yield from _file_system(project)
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}"
        yield Finding("file system", reason, "labmake has to write there: correct the permissions", "wrong")
    yield from _states(project)
    yield from _store(project)
    yield from _builds(project)


def _file_system(project: Project) -> Iterator[Finding]:
    kind = file_system(project.state)
    far = "it lies on another machine: builds work, and are slower" if is_network(project.state) else ""
    yield Finding("file system", kind or "unknown", far, "advice" if far else "")
    files = uses_lock_files(project.state)
    yield Finding("locks", "lock files with a heartbeat" if files else "flock")
    yield Finding("state", str(place_of(project.database)))
    if os.stat(project.root).st_dev != os.stat(project.state).st_dev:
        advice = "results are copied from one to the other instead of renamed"
        yield Finding("devices", "worktree and store lie on different file systems", advice, "advice")
    yield from _abilities(project.state)
    free = shutil.disk_usage(project.state).free
    little = free < LITTLE
    yield Finding(
        "free space", in_bytes(free), "`labmake gc` removes old results" if little else "", "advice" if little else ""
    )
    clock = RealClock()
    skew = clock.file_system_now(project.state) / 1e9 - clock.now()
    bad = abs(skew) > SKEW
    advice = "the clocks of machine and file system differ: let both use NTP" if bad else ""
    yield Finding("clock", f"{skew:+.3f} s from the machine's", advice, "advice" if bad else "")


def _abilities(folder: Path) -> Iterator[Finding]:
    """What the file system can: tried with two small files."""
    one, other = (str(folder / f".doctor-{os.getpid()}-{name}") for name in "ab")
    try:
        descriptor = create(one, 0o644)
        os.write(descriptor, b"x" * 4096)
        os.close(descriptor)
        descriptor = create(other, 0o644)
        shared = reflink(one, descriptor)
        os.close(descriptor)
        os.unlink(other)
        yield Finding("reflinks", "yes: large results cost no space twice" if shared else "no")
        try:
            os.link(one, other)
            yield Finding("hard links", "yes")
        except OSError as error:
            advice = "large results are copied: they take their space twice"
            yield Finding("hard links", f"no: {error.strerror}", advice, "advice")
        step = _granularity(one)
        coarse = step > GRANULARITY / 1e9
        advice = "an edit within this time of a build may be missed: wait so long before building again"
        yield Finding("time stamps", f"{step * 1000:.3g} ms apart", advice * coarse, "advice" * coarse)
    finally:
        for path in (one, other):
            if os.path.exists(path):
                os.unlink(path)


def _granularity(path: str) -> float:
    """Seconds between two different time stamps of a file that is written again and again, at most two."""
    stamps: list[int] = []
    end = time.monotonic() + 2.1
    while len(stamps) < 3 and time.monotonic() < end:
        os.utime(path)
        stamp = os.stat(path).st_mtime_ns
        if not stamps or stamp != stamps[-1]:
            stamps.append(stamp)
    return (stamps[-1] - stamps[-2]) / 1e9 if len(stamps) > 1 else 2.0


def _states(project: Project) -> Iterator[Finding]:
    for path in sorted((project.state / "state").glob("*.db")):
        own = " (this worktree)" if path == project.database else ""
        try:
            facts, failing, root = peek(path)
            value = f"{len(facts)} targets known, {len(failing)} failing{own or f'  {root}'}"
            damage = _damage(path)
            advice = f"{damage}: any command in that worktree mends it" if damage else ""
            yield Finding("state file", value, advice, "wrong" if damage else "")
        except LabmakeError as error:
            yield Finding("state file", f"{path}: {error.what}", error.todo[0], "wrong")


def _damage(path: Path) -> str:
    """What SQLite finds wrong with a file; "" if nothing."""
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
    try:
        found = database.execute("pragma quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        return str(error)
    finally:
        database.close()
    return "" if found == "ok" else str(found)


def _store(project: Project) -> Iterator[Finding]:
    store = project.state / "store"
    if not store.is_dir():
        yield Finding("store", "empty: nothing was built yet")
        return
    try:
        seen = view(store)
    except OSError as error:
        yield Finding("segments", f"{error.filename}: {error.strerror}", "correct the permissions", "wrong")
        return
    seen.close()
    small = [key for kind, key in seen.places if kind == "B"]
    traces = sum(kind == "T" for kind, _ in seen.places)
    yield Finding("segments", f"{len(seen.segments)}, with {traces} traces and {len(small)} small results")
    large = [path for path in (store / "blobs").glob("*/*") if path.is_file()]
    size = sum(path.stat().st_size for path in large)
    yield Finding("large results", f"{len(large)}, {in_bytes(size)}")
    bad = [*_bad_small(store, small), *_bad_large(large)]
    tried = min(len(small), SAMPLE) + min(len(large), SAMPLE)
    advice = "it is made again when it is needed; if there are many, look at the disk" if bad else ""
    shown = "".join(f"\n      {one}" for one in bad[:5])
    value = f"{tried} of {len(small) + len(large)} results, {len(bad)} damaged{shown}"
    yield Finding("verified", value, advice, "wrong" if bad else "")


def _builds(project: Project) -> Iterator[Finding]:
    """The builds that run now, with what they make; others wait for one that is stopped."""
    builds: dict[int, list[Running]] = {}
    for step in running_steps(project.state / "steps"):
        builds.setdefault(step.process, []).append(step)
    for process, steps in builds.items():
        where = "" if steps[0].project == str(project.root) else f"  {steps[0].project}"
        names = ", ".join(short(step.job["id"], experiment_of(step.job["id"]) or "") for step in steps)
        stopped = is_stopped(process)
        advice = f"it is stopped, and others wait for it: `kill -CONT {process}`, or `kill -9 {process}` to give it up"
        value = f"process {process} makes {names}{where}"
        yield Finding("running build", value, advice * stopped, "advice" * stopped)


def _bad_small(store: Path, digests: list[str]) -> Iterator[str]:
    blobs = Blobs(store, MemoryIndex())
    try:
        yield from (digest for digest in random.sample(digests, min(len(digests), SAMPLE)) if not blobs.verify(digest))
    finally:
        blobs.close()


def _bad_large(files: list[Path]) -> Iterator[str]:
    """Large blobs whose bytes are not those of their name, read in full: one gigabyte at most."""
    read = 0
    for path in random.sample(files, min(len(files), SAMPLE)):
        read += path.stat().st_size
        if read > 1 << 30:
            return
        if digest_file(str(path))[:64] != path.name:
            yield str(path)

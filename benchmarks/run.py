"""Time labmake beside its peers in one run: whole processes in turn, medians, ratios, and what was aimed at.

    python benchmarks/run.py                                   print the tables
    python benchmarks/run.py --steps 2000 20000 --page         and write them and the pictures into docs/design/

Every tool makes the same files with the same trivial shell steps, and the files are looked at after every build. A peer
that is not installed is named as absent.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import chains
import fanout
import hashing
import plot
import pysteps
import restoring
import sections
import startup
from measure import MEMORY_FILE_SYSTEMS, Phases, Results, file_system
from tables import aims, replaced
from tools import TOOLS, Project, absent, compare, version

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "design" / "performance.md"
PICTURES = {"chains": "performance.svg", "fan-out": "performance-fan-out.svg"}
SCENARIOS = ("chains", "fan-out", "python-steps", "restoring", "hashing", "start-up")

Found = dict[int, tuple[Results, dict[str, str]]]
"""By size: the results, and which tools are absent, and why."""

Pictures = dict[str, tuple[Results, list[str]]]
"""By title: the results and phases that a picture shows."""


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--only", nargs="+", choices=SCENARIOS, default=SCENARIOS, metavar="SCENARIO")
    given.add_argument(
        "--steps", type=int, nargs="+", default=[2000], help="of the chains; several give several tables"
    )
    given.add_argument("--slow-steps", type=int, default=40, help="at which the slow peers are compared too")
    given.add_argument("--width", type=int, default=1000, help="of the fan-out")
    given.add_argument("--slow-width", type=int, default=20, help="at which the slow peers are compared too")
    given.add_argument("--python-steps", type=int, default=1000, help="with numpy")
    given.add_argument("--slow-python-steps", type=int, default=20, help="at which the slow peers are compared too")
    given.add_argument("--outputs", type=int, default=10_000, help="deleted and restored")
    given.add_argument("--megabytes", type=int, default=1024, help="of a large input")
    given.add_argument("--jobs", type=int, default=2)
    given.add_argument("--runs", type=int, default=3)
    given.add_argument("--short-runs", type=int, default=21, help="of the short commands")
    given.add_argument("--folder", type=Path, default=ROOT / "build", help="where to build: on a disk")
    given.add_argument("--page", action="store_true", help="write tables and pictures into docs/design/")
    return given.parse_args(words)


def several(module, base: Path, sizes: Sequence[int], slow_size: int, given: argparse.Namespace) -> Found:
    """A scenario at one or more sizes for the fast tools, and at one for all of them."""
    projects: Sequence[Project] = module.PROJECTS

    def cycle(project: Project, size: int) -> Phases:
        return module.cycle(project, base, size, given.jobs)

    found = {}
    for size in sorted({slow_size, *sizes}):
        print(f"{module.__name__}, {size}", file=sys.stderr)
        found[size] = compare(projects, cycle, size, given.runs, slow=size <= slow_size)
    return found


def measured(base: Path, given: argparse.Namespace) -> Iterator[tuple[sections.Section, Pictures]]:
    """All scenarios that were asked for, in turn, each as soon as it is done; and what its picture shows."""
    if "chains" in given.only:
        found = several(chains, base, given.steps, given.slow_steps, given)
        pictures = {f"{n} steps": (results, ["cold", "null", "one changed"]) for n, (results, _) in found.items()}
        yield sections.chains_section(found), pictures
    if "fan-out" in given.only:
        found = several(fanout, base, [given.width], given.slow_width, given)
        pictures = {f"fan-out, K = {n}": (results, ["cold", "null"]) for n, (results, _) in found.items()}
        yield sections.fanout_section(found), pictures
    if "python-steps" in given.only:
        found = several(pysteps, base, [given.python_steps], given.slow_python_steps, given)
        yield sections.pysteps_section(found), {}
    if "restoring" in given.only:
        results = restoring.compare(base, given.outputs, given.jobs, given.runs)
        yield sections.restoring_section(given.outputs, results), {}
    if "hashing" in given.only:
        results = hashing.compare(base, given.megabytes, given.jobs, given.runs)
        yield sections.hashing_section(given.megabytes, results), {}
    if "start-up" in given.only:
        yield sections.startup_section(startup.compare(base, given.short_runs)), {}


def conditions(folder: Path, given: argparse.Namespace) -> str:
    """What figures hold for: command, machine, tools, commit. Parts are refreshed singly, so each has its own."""
    disk = file_system(folder)
    there = [f"{name} {version(name)}" for name in TOOLS if absent(name) is None]
    git = subprocess.run(["git", "describe", "--always"], cwd=ROOT, capture_output=True, text=True, check=False)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    words = f"{os.cpu_count()} processors, {platform.system()}, {disk}, {python}; {given.jobs} jobs, {given.runs} runs"
    command = shlex.join(["benchmarks/run.py", *sys.argv[1:]])
    text = f"`{command}`, at {git.stdout.strip() or 'no commit'}: {words}. {', '.join(there)}."
    return f"{text} A file system in memory: what disks cost is hidden." if disk in MEMORY_FILE_SYSTEMS else text


def main() -> None:
    given = arguments()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.page and file_system(given.folder) in MEMORY_FILE_SYSTEMS:
        sys.exit(f"{given.folder} lies in memory: name a --folder on a disk for figures that are kept")
    told = conditions(given.folder, given)
    print(told)
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="bench-") as base:
        for section, pictures in measured(Path(base).resolve(), given):
            text = f"{aims(section.aims)}\n\n{section.text}"
            print(f"\n{text}", flush=True)
            if given.page:  # at once: a long run that is broken off has told what it knew
                PAGE.write_text(replaced(PAGE.read_text(), {section.name: f"{told}\n\n{text}"}))
                if pictures:
                    plot.draw(PAGE.with_name(PICTURES[section.name]), pictures)


if __name__ == "__main__":
    main()

"""Measured commands: what one costs, runs in turn, and medians with their range."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LAUNCH = str(Path(__file__).parent / "launch.py")

LEFT_OUT = ("PYTHONDONTWRITEBYTECODE", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")
"""Without bytecode Python would compile every tool in every run; and `make bench` is a make itself, whose flags would
reach the make that is measured."""

ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in LEFT_OUT} | {"DVC_NO_ANALYTICS": "1"}

MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds of wall clock, processor seconds with all it waited for, its largest process in MB.

    Memory 0 is "less than the launching process has", about 10 MB.
    """

    seconds: float
    cpu: float
    memory: float


Phases = dict[str, Cost]
"""One run of a contender: what each phase (cold, null, …) cost."""

Results = dict[str, list[Phases]]
"""All runs of all contenders, by name, in the order of the tables."""


def cost(command: Sequence[str], folder: Path) -> Cost:
    """Run a command in a folder to its end. Ends the benchmark with what it printed if it fails."""
    os.sync()  # what earlier commands left to be written is not this one's cost
    words = [sys.executable, "-IS", LAUNCH, str(folder), *command]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, check=False, errors="replace")
    seconds, cpu, memory, code = done.stdout.split() or "0 0 0 failed".split()
    if code != "0":
        sys.exit(f"`{shlex.join(command)}` in {folder} failed ({code}):\n{done.stderr[-3000:]}")
    return Cost(float(seconds), float(cpu), float(memory))


def in_turn(cycles: Mapping[str, Callable[[], Phases]], runs: int) -> Results:
    """Run all contenders `runs` times in turn (A B A B), so that other work on the machine meets all of them."""
    results: Results = {name: [] for name in cycles}
    for run in range(runs):
        for name, cycle in cycles.items():
            print(f"  {run + 1}/{runs} {name}", file=sys.stderr, flush=True)
            results[name].append(cycle())
    return results


def values(results: Results, name: str, phase: str, of: str = "seconds") -> list[float]:
    """All measured values of a contender's phase; empty if it was not measured."""
    return [getattr(run[phase], of) for run in results.get(name, []) if phase in run]


def median(results: Results, name: str, phase: str, of: str = "seconds") -> float:
    """The median, or not-a-number if it was not measured."""
    found = values(results, name, phase, of)
    return statistics.median(found) if found else float("nan")


def ratio(results: Results, name: str, phase: str, to: str, of: str = "seconds", to_phase: str = "") -> float:
    """A contender's median divided by another's (not-a-number if one is missing)."""
    base = median(results, to, to_phase or phase, of)
    return median(results, name, phase, of) / base if base else float("nan")


def file_system(folder: Path) -> str:
    """The type of the file system that a folder lies on, as far as the machine tells."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return "unknown file system"
    above = [(len(m[1]), m[2]) for m in mounts if folder.resolve().is_relative_to(m[1].replace("\\040", " "))]
    return max(above)[1]

"""Time labmake beside its peers in one run: whole processes, alternating, medians, the ratio to GNU make.

    python benchmarks/run.py [--steps 2000] [--jobs 2] [--runs 3]

Every tool makes the same files with the same trivial shell steps in a fresh folder: `chains` of two steps each. A peer
that is not installed is named as absent. Times are seconds of wall clock, the medians of the runs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""As a user has it: with the variable, Python would compile labmake in every run."""


@dataclass(frozen=True)
class Tool:
    """A tool: how its project is written, the command, and a program that must be there."""

    name: str
    write: Callable[[Path, int], None]
    command: list[str]
    needs: str


def write_make(folder: Path, chains: int) -> None:
    lines = [
        "SHELL := /bin/bash",
        f"all: $(foreach i,$(shell seq {chains}),out/b$(i).txt)",
        "out/a%.txt: in/%.txt",
        "\t@cat $< > $@",
        "out/b%.txt: out/a%.txt",
        "\t@cat $< > $@",
        ".SECONDARY:",
    ]
    (folder / "Makefile").write_text("\n".join(lines) + "\n")
    (folder / "out").mkdir()


def write_ninja(folder: Path, chains: int) -> None:
    lines = ["rule cat", "  command = cat $in > $out"]
    for i in range(1, chains + 1):
        lines += [f"build out/a{i}.txt: cat in/{i}.txt", f"build out/b{i}.txt: cat out/a{i}.txt"]
    (folder / "build.ninja").write_text("\n".join(lines) + "\n")


def write_labmake(folder: Path, chains: int) -> None:
    (folder / "rules.py").write_text(f"""from labmake import rule, sh
for i in range(1, {chains} + 1):
    rule(f"a{{i}}.txt", x=f"/in/{{i}}.txt", run=sh("cat {{x}} > {{out}}"))
    rule(f"b{{i}}.txt", x=f"a{{i}}.txt", run=sh("cat {{x}} > {{out}}"))
""")


def tools(jobs: int) -> list[Tool]:
    labmake = [sys.executable, "-m", "labmake.cli.entry", "-q", "-j", str(jobs)]
    return [
        Tool("make", write_make, ["make", "-s", f"-j{jobs}"], "make"),
        Tool("ninja", write_ninja, ["ninja", "--quiet", f"-j{jobs}"], "ninja"),
        Tool("labmake", write_labmake, labmake, sys.executable),
    ]


def seconds(command: list[str], folder: Path) -> float:
    """Run a command in a folder to its end; seconds of wall clock."""
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT)
    return time.perf_counter() - start


def one_run(tool: Tool, base: Path, chains: int) -> dict[str, float]:
    """Cold build, null build, and a build after one input changed, in a fresh folder."""
    folder = base / tool.name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    for i in range(1, chains + 1):
        (folder / "in" / f"{i}.txt").write_text(f"input {i}\n")
    tool.write(folder, chains)
    times = {"cold": seconds(tool.command, folder)}
    time.sleep(0.05)
    times["null"] = seconds(tool.command, folder)
    (folder / "in" / "1.txt").write_text("changed\n")
    times["one changed"] = seconds(tool.command, folder)
    shutil.rmtree(folder)
    return times


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=2000)
    arguments.add_argument("--jobs", type=int, default=2)
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--folder", type=Path, help="where to build (a folder on a disk; tmpfs hides costs)")
    given = arguments.parse_args()
    there = [tool for tool in tools(given.jobs) if shutil.which(tool.needs)]
    absent = [tool.name for tool in tools(given.jobs) if not shutil.which(tool.needs)]
    results: dict[str, list[dict[str, float]]] = {tool.name: [] for tool in there}
    with tempfile.TemporaryDirectory(dir=given.folder or Path.cwd()) as base:
        for _ in range(given.runs):
            for tool in there:
                results[tool.name].append(one_run(tool, Path(base), given.steps // 2))
    print(f"{given.steps} steps, {given.jobs} jobs, median of {given.runs} runs, {os.cpu_count()} processors")
    print("| tool | cold s | ÷ make | null s | ÷ ninja | one changed s |\n|---|--:|--:|--:|--:|--:|")
    median = {n: {k: statistics.median(r[k] for r in runs) for k in runs[0]} for n, runs in results.items()}
    for name, m in median.items():
        cold = f"{m['cold'] / median['make']['cold']:.2f}" if "make" in median else "-"
        null = f"{m['null'] / median['ninja']['null']:.2f}" if "ninja" in median else "-"
        print(f"| {name} | {m['cold']:.2f} | {cold} | {m['null']:.3f} | {null} | {m['one changed']:.3f} |")
    if absent:
        print("absent: " + ", ".join(absent))


if __name__ == "__main__":
    main()

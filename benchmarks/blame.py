"""What `labmake blame` costs: a history of which few commits touch the target, walked to its beginning.

Prints, for each question, seconds on the clock (the best run) and of processor time, labmake's start included.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RULES = """from labmake import each, py, rule, sh

rule("numbers/{{i}}.txt", run=sh("echo {{i}} > {{out}}"))
rule("sum.txt", numbers=each("numbers/{{i}}.txt", i=[str(i) for i in range({steps})]),
     run=py("src/model.py:total", window={window}))
"""

MODEL = """def total(numbers, window):
    return str(window * sum(int(path.read_text()) for path in numbers.values()))
"""


def run(folder: Path, *words: str) -> str:
    """A command's output; it has to succeed."""
    who = {f"GIT_{role}_{what}": "bench" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(
        words, cwd=folder, env={**os.environ, **who}, capture_output=True, text=True, check=True
    ).stdout


def labmake(folder: Path, *words: str) -> str:
    return run(folder, sys.executable, "-m", "labmake.cli.entry", *words)


def lay(folder: Path, commits: int, touching: int, steps: int, files: int) -> None:
    """A repository of so many commits and files; each changes a file, some also a parameter, and these are built."""
    run(folder, "git", "init", "-q")
    (folder / ".gitignore").write_text("generated/\n")
    (folder / "src").mkdir()
    (folder / "src" / "model.py").write_text(MODEL)
    for number in range(files):
        place = folder / "notes" / f"{number % 20}" / f"{number}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("x\n")
    every = commits // touching
    for number in range(commits):
        if number % every == 0:
            (folder / "rules.py").write_text(RULES.format(steps=steps, window=number + 1))
            labmake(folder, "build", "-q", "sum.txt")
        (folder / "notes" / "0" / "0.txt").write_text(f"{number}\n")
        run(folder, "git", "add", "-A")
        run(folder, "git", "commit", "-q", "-m", f"Commit {number}")


def measured(folder: Path, runs: int, *words: str) -> tuple[float, float, str]:
    """(seconds on the clock, of processor time, last line) of a command: the best run."""
    best, said = (float("inf"), float("inf")), ""
    for _ in range(runs):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        said = labmake(folder, *words)
        spent, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best = min(best[0], spent), min(best[1], processor)
    return *best, said.strip().split("\n")[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=200)
    parser.add_argument("--touching", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay(folder, wanted.commits, wanted.touching, wanted.steps, wanted.files)
        print(f"{wanted.commits} commits, {wanted.touching} touch it, {wanted.steps} steps, {wanted.files} files")
        questions = {
            "labmake --version": ["--version"],
            "the last change": ["blame", "sum.txt"],
            "all changes": ["blame", "sum.txt", "-n", "1000"],
            "what no commit but the first touches": ["blame", "numbers/1.txt", "-n", "1000"],
        }
        for title, words in questions.items():
            clock, processor, last = measured(folder, wanted.runs, *words)
            counts = re.search(r"\d+ commits looked at, \d+ decided", last)
            print(f"{title.ljust(38)} {clock:6.2f} s  {processor:6.2f} s  {counts[0] if counts else ''}")


if __name__ == "__main__":
    main()

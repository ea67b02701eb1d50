"""Large inputs: a build that has to hash them, beside one thread of the hash function over the same files."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from measure import Cost, Phases, Results, in_turn
from measure import cost as measured
from tools import Project, build, check, lay

BLOCK = 1 << 20

HASH = "import hashlib, sys; hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256')"
"""One thread of the hash function over one file."""

BOTH = f"""import subprocess, sys
running = [subprocess.Popen([sys.executable, "-c", {HASH!r}, file]) for file in sys.argv[1:]]
sys.exit(max(one.wait() for one in running))"""
"""Two of them at once: what this machine can do with two files."""

ONE, TWO, SMALL = "labmake, one file", "labmake, two files", "labmake, a small file"
THREAD, THREADS = "sha256, one file", "sha256, two files at once"


def rules(files: int) -> Mapping[str, str]:
    """A step for each file that needs it and does next to nothing with it."""
    lines = [
        f'rule("{i}.txt", large="/in/{i}.bin", run=sh("head -c 1 {{large}} > {{out}}"))\n' for i in range(1, files + 1)
    ]
    return {"rules.py": "from labmake import rule, sh\n\n" + "".join(lines)}


def write(path: Path, size: int) -> None:
    """A file that begins with `x`, of blocks that all differ, in files of two names as well."""
    with path.open("wb") as file:
        for block in range(size // BLOCK):
            file.write(b"x%s%06d" % (path.stem[:1].encode(), block) + b"%08d" % block * (BLOCK // 8 - 1))


def warm(paths: list[Path]) -> None:
    """Read files once, so that all contenders find them in the page cache (if they fit)."""
    for path in paths:
        with path.open("rb") as file:
            while file.read(BLOCK):
                pass


def labmake(base: Path, files: list[Path], jobs: int) -> Phases:
    """A first build over these files."""
    project = Project("labmake", "labmake", rules, (), "generated/assets")
    folder = base / "hashing"
    lay(project, folder, len(files), jobs, {"in/.keep": ""})
    for i, file in enumerate(files, 1):
        (folder / f"in/{i}.bin").hardlink_to(file)
    warm(files)
    phases = {"cold": build(project, folder, jobs)}
    check(project, folder, {f"{i}.txt": "x" for i in range(1, len(files) + 1)}, "cold")
    shutil.rmtree(folder)
    return phases


def function(base: Path, program: str, files: list[Path]) -> Phases:
    """A bare Python that hashes these files."""
    warm(files)
    done: Cost = measured([sys.executable, "-c", program, *map(str, files)], base)
    return {"cold": done}


def compare(base: Path, megabytes: int, jobs: int, runs: int) -> Results:
    """Two files of this size; a small one tells what a build costs without any hashing."""
    files = [base / "1.bin", base / "2.bin", base / "small.bin"]
    for path, size in zip(files, (megabytes, megabytes, 1), strict=True):
        write(path, size * BLOCK)
    labmake(base, files[2:], jobs)  # compiles bytecode
    results = in_turn(
        {
            SMALL: lambda: labmake(base, files[2:], jobs),
            THREAD: lambda: function(base, HASH, files[:1]),
            ONE: lambda: labmake(base, files[:1], jobs),
            THREADS: lambda: function(base, BOTH, files[:2]),
            TWO: lambda: labmake(base, files[:2], jobs),
        },
        runs,
    )
    for path in files:
        path.unlink()
    return results

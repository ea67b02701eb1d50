"""Short commands: labmake's help, and a build of the example that finds nothing to do, beside the bare interpreter."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import chains
import restoring
from measure import Results, cost, in_turn
from tools import lay, program

EXAMPLE = Path(__file__).parent.parent / "examples" / "covariance"

BARE, HELP = "python -c pass", "labmake --help"
FEW, NOTHING = "labmake, nothing to do in 20 steps", "labmake, nothing to do in the example"


def compare(base: Path, runs: int) -> Results:
    """The example is built first (it takes a while: its imports, its PDF); then all short commands in turn."""
    labmake = program("labmake") or "labmake"
    folder, small = base / "example", base / "small"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("generated", ".venv", "__pycache__"))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    lay(restoring.PROJECT, small, 10, 1, chains.inputs(10))
    commands = {
        BARE: ([sys.executable, "-c", "pass"], base),
        HELP: ([labmake, "--help"], base),
        FEW: ([labmake, "all"], small),
        NOTHING: ([labmake], folder),
    }
    for _ in range(2):  # the first null build may look at everything once more
        for words, where in commands.values():
            cost(words, where)
    results = in_turn({name: lambda one=one: {"": cost(*one)} for name, one in commands.items()}, runs)
    shutil.rmtree(folder)
    shutil.rmtree(small)
    return results

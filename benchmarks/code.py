"""What a function's identity costs in a project of 60 000 lines: unchanged, and with one file of 1 000 lines changed.

    python benchmarks/code.py [--files 60] [--runs 7]

A script imports every module and has a step for each; modules import one another. The state file, its memo and the stat
cache are labmake's own, opened anew for each time, as a command does. Printed: the median and the range of wall clock
and of processor time in ms; and what Python's own parser takes for one such file, which is the floor of a change.
"""

from __future__ import annotations

import argparse
import ast
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from labmake.environment.code_files import CodeReader
from labmake.layout import Project
from labmake.seams import RealClock
from labmake.store.state import State
from labmake.store.stats import StatCache

EXPERIMENT = "2026-01-02-Bench"

FUNCTION = '''
def {name}(table: pandas.DataFrame, window: int = WINDOW, *, scale: float = {number}.5) -> pandas.DataFrame:
    """The rolling mean of a table, scaled.

    Rows without a value are left out; `window` is in days.
    """
    # Sorted by time, since windows are counted in rows.
    ordered = table.sort_values("time").reset_index(drop=True)
    values = ordered["value"].to_numpy(dtype=float)
    kernel = numpy.ones(window) / window
    smooth = numpy.convolve(values, kernel, mode="same") * scale
    result = []

    for row, (time, value) in enumerate(zip(ordered["time"], smooth, strict=True)):
        if numpy.isnan(value) or row < window // 2:
            continue
        result.append({{"time": time, "value": value, "rest": abs(value - values[row])}})

    frame = pandas.DataFrame(result, columns=["time", "value", "rest"])
    return frame if scale > 0 else {other}(frame, window)

'''
HEAD = """import math
from pathlib import Path

import numpy
import pandas
{imports}

WINDOW = {number}
NAMES = ["{number}", "b"]
FOLDER = Path("data") / "raw"

"""


def module(number: int, lines: int) -> str:
    """A module of about `lines` lines whose functions call one another and some of the modules before it."""
    others = [other for other in dict.fromkeys((number - 1, number // 2)) if 0 <= other < number]
    text = HEAD.format(imports="\n".join(f"from library import m{other}" for other in others), number=number + 1)
    count = (lines - text.count("\n")) // FUNCTION.count("\n")
    for function in range(count):
        other = f"m{others[-1]}.f{function}" if others and function % 3 == 0 else f"f{max(0, function - 1)}"
        text += FUNCTION.format(name=f"f{function}", number=function, other=other)
    return text + "# end\n" * (lines - text.count("\n"))


def lay(root: Path, files: int, lines: int) -> None:
    library = root / "src" / "library"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("")
    for number in range(files):
        (library / f"m{number}.py").write_text(module(number, lines))
    imports = "".join(f"from library import m{number}\n" for number in range(files))
    steps = "".join(f"\n\ndef step{n}(table):\n    return m{n}.f7(table)\n" for n in range(files))
    (root / "scripts" / EXPERIMENT).mkdir(parents=True)
    (root / "scripts" / EXPERIMENT / "script.py").write_text(imports + steps)


Times = tuple[float, float]
"""Milliseconds of wall clock and of processor time."""


def identities(root: Path, steps: int) -> Times:
    """What the identities of the first `steps` functions of the script take."""
    from labmake.cli.session import _Memo

    state = State.open(Project(root, root / ".labmake").database)
    try:
        stats = StatCache(state, root, RealClock())
        script = f"scripts/{EXPERIMENT}/script.py"
        for path in sorted(root.glob("src/library/*.py")):  # stats and hashes are no part of this
            stats.digest(str(path))
        memo = _Memo(state)

        def find() -> None:
            reader = CodeReader(root, stats.digest, memo, [])
            for number in range(steps):
                assert any(file.identity for file in reader.function(script, EXPERIMENT, f"step{number}").files)

        took = timed(find)
        state.commit()
        return took
    finally:
        state.close()


def timed(work: Callable[[], object]) -> Times:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - wall) * 1000, (time.process_time() - processor) * 1000


def told(what: str, times: Sequence[Times]) -> None:
    columns = []
    for kind in zip(*times, strict=True):
        columns.append(f"{statistics.median(kind):7.1f} ({min(kind):.1f} to {max(kind):.1f})")
    print(f"{what:<46} {columns[0]:<28} {columns[1]}", flush=True)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--files", type=int, default=60)
    given.add_argument("--lines", type=int, default=1000)
    given.add_argument("--runs", type=int, default=7)
    options = given.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / ".labmake").mkdir()
        lay(root, options.files, options.lines)
        changed = root / "src" / "library" / f"m{options.files // 2}.py"
        text = changed.read_text()
        lines = sum(path.read_text().count("\n") for path in root.glob("src/library/*.py"))
        print(f"{lines} lines in {options.files} modules")
        print(f"{'':<46} {'wall ms':<28} processor ms")
        told("all files for the first time, one step", [identities(root, 1)])
        told("ast.parse of one file", [timed(lambda: ast.parse(text)) for _ in range(options.runs)])
        for steps in (1, options.files):
            identities(root, steps)

            def edited(run: int, steps: int = steps) -> Times:
                changed.write_text(text.replace("* scale", f"* scale * {run + 2 + steps}", 1))
                return identities(root, steps)

            words = f"{steps} step{'s' * (steps > 1)}"
            told(f"unchanged, {words}", [identities(root, steps) for _ in range(options.runs)])
            told(f"one file of {options.lines} lines changed, {words}", [edited(run) for run in range(options.runs)])


if __name__ == "__main__":
    main()

"""The oracle: random pipelines and edits, kill -9, builds at once; after each what an independent model says must hold.

python tests/oracle.py --histories 10000 [--seed S] [--killed F] [--together F] [--jobs N] [--keep FOLDER]
python tests/oracle.py --seed S --histories 1 [--killed 1] [--together 1] [--steps 0,2,5]      one again, or a part

After each build: the exit code and the files are those of the model (a clean build of the same sources, with what an
edit or a failure keeps), each action ran at most once, and exactly those ran that the store had no trace of. Of builds
at once the same is asked of all together, whether they share a worktree or only the store.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from oracle_history import History
from oracle_running import Mismatch


def run_history(
    seed: int, kills: bool, together: bool, base: Path, steps: Sequence[int] | None = None
) -> tuple[str, History]:
    """Run one history in a new folder below `base`; returns "" or what went wrong, and the history."""
    folder = Path(tempfile.mkdtemp(prefix=f"oracle-{seed}-", dir=base))
    history = History(seed, kills, together, folder)
    length = random.Random(f"{seed} length").randrange(4, 8)
    try:
        for number in range(length) if steps is None else steps:
            history.step(number)
        history.end()
    except Mismatch as wrong:
        return str(wrong), history
    except Exception:
        return f"the oracle itself failed\n{traceback.format_exc()}", history
    shutil.rmtree(folder)
    return "", history


def shrink(seed: int, base: Path, length: int) -> list[int]:
    """The steps of a history that fails, without those that it fails without."""
    kept = list(range(length))
    for number in list(kept):
        fewer = [other for other in kept if other != number]
        with tempfile.TemporaryDirectory(dir=base) as folder:
            wrong, _ = run_history(seed, False, False, Path(folder), fewer)
        if wrong:
            kept = fewer
    return kept


def report(seed: int, wrong: str, history: History, base: Path, steps: Sequence[int] | None) -> str:
    """A failed history: its seed, all that was done, the rules, what is wrong, and where it lies."""
    again = f"python tests/oracle.py --histories 1 --seed {seed}"
    again += " --killed 1" * history.killing + " --together 1" * history.together
    if steps is None and not history.killing and not history.together:  # what depends on the moment may not come again
        shrunk = shrink(seed, base, random.Random(f"{seed} length").randrange(4, 8))
        second, shorter = run_history(seed, False, False, base, shrunk)
        if second:
            again += f" --steps {','.join(map(str, shrunk)) or 'none'}"
            shutil.rmtree(history.folder)
            wrong, history = second, shorter
    script = (history.root / "scripts" / history.current / "script.py").read_text()
    story = "\n".join(f"  {line}" for line in history.story)
    return (
        f"seed {seed}: {again}\n{'=' * 80}\n{script}\n{'-' * 80}\nsources: {dict(history.pipeline.sources)}\n"
        f"{'-' * 80}\n{story}\n{'-' * 80}\n{wrong}\nit lies in {history.folder}\n{'=' * 80}"
    )


def _one(task: tuple[int, bool, bool, Path, list[int] | None]) -> tuple[str, int, int, int]:
    seed, kills, together, base, steps = task
    wrong, history = run_history(seed, kills, together, base, steps)
    text = report(seed, wrong, history, base, steps) if wrong else ""
    return text, history.builds, history.ran, history.kills


def _drawn(seed: int, what: str, share: float) -> bool:
    return random.Random(f"{seed} {what}").random() < share


def main(arguments: Sequence[str] | None = None) -> int:
    """Run histories; the exit code is 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        description="Random pipelines, edits, kill -9, builds at once: is every build right?"
    )
    parser.add_argument("--histories", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the first history; the next ones follow")
    parser.add_argument("--killed", type=float, default=0.2, help="the share of histories with kill -9")
    parser.add_argument(
        "--together", type=float, default=0.2, help="the share of histories with several builds at once"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="histories at once")
    parser.add_argument("--steps", help="only these steps of the history, such as 0,2,5")
    parser.add_argument("--keep", type=Path, help="the folder in which failed histories are left")
    parser.add_argument("--stop", type=int, default=5, help="failures after which it is enough")
    words = parser.parse_args(arguments)
    base = words.keep or Path(tempfile.mkdtemp(prefix="labmake-oracle-"))
    base.mkdir(parents=True, exist_ok=True)
    steps = None if words.steps is None else [int(n) for n in words.steps.split(",") if n.isdigit()]
    tasks = [
        (seed, _drawn(seed, "killed", words.killed), _drawn(seed, "together", words.together), base, steps)
        for seed in range(words.seed, words.seed + words.histories)
    ]
    import labmake.cli.building
    import labmake.cli.main
    import labmake.cli.tidying  # noqa: F401  (loaded once, for all forked children)

    failed, totals = 0, Counter[str]()
    with multiprocessing.get_context("fork").Pool(words.jobs) as pool:
        for text, builds, ran, kills in pool.imap_unordered(_one, tasks):
            totals.update(histories=1, builds=builds, steps=ran, kills=kills)
            if text:
                failed += 1
                print(text, flush=True)
            if failed >= words.stop:
                pool.terminate()
                break
    told = ", ".join(f"{count} {word}" for word, count in totals.items())
    print(f"{told}, {failed} failed", flush=True)
    if not failed and words.keep is None:
        shutil.rmtree(base, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

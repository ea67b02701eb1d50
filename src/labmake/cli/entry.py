"""Where the command begins: gear 1, then the command line in an interpreter with a fixed hash seed.

The seed is fixed so that a plan which iterates over a set decides the same again.
"""

import os
import sys

CHANGED = "LABMAKE_CHANGED"
"""The variable in which gear 1 tells gear 2 what changed, across the start of the interpreter."""

COMPLETE = "_LABMAKE_COMPLETE"
"""The variable by which a shell asks for the completion of a word; it must get that and nothing else."""

MOST = 500
"""Paths above which everything is looked at anyway."""


def main() -> None:
    """The command; interrupted at any moment, it says so and no more."""
    try:
        _main()
    except KeyboardInterrupt:
        from labmake.errors import INTERRUPTED

        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)


def _main() -> None:
    """Tell that nothing has changed, or run the command line, in a new interpreter if this one's seed is random."""
    if COMPLETE in os.environ:
        from labmake.cli.main import main as complete

        complete()
        return
    from labmake.engine import snapshot

    words, here = sys.argv[1:], os.getcwd()
    told, changed = snapshot.look(words, here)
    if told is not None:
        sys.stderr.write(f"{told} (0.0 s)\n")
        return
    if changed is not None and len(changed) <= MOST and not any("\n" in path for path in changed):
        os.environ[CHANGED] = "\n".join(changed)
    if os.environ.get("PYTHONHASHSEED") != "0" and words[-1:] not in (["--help"], ["-h"], ["--version"]):
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    from labmake.cli.main import main as run

    run(snapshot.question(words, here), os.environ.pop(CHANGED, None))


if __name__ == "__main__":
    main()

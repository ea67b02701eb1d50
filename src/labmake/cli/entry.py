"""Where the command begins: gear 1, then the command line in an interpreter with a fixed hash seed.

The seed is fixed so that a plan which iterates over a set decides the same again.
"""

import os
import sys

CHANGED = "LABMAKE_CHANGED"
"""The variable in which gear 1 tells what changed across the start of an interpreter, with the process that looked."""

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
    """Tell that nothing has changed, or run the command line, in an interpreter whose seed is fixed if it matters."""
    if COMPLETE in os.environ:
        from labmake.cli.main import main as complete

        complete()
        return
    from labmake.engine import snapshot

    words, here = sys.argv[1:], _here()
    known, changed = _told_before()
    if not known:
        told, found = snapshot.look(words, here)
        if told is not None:
            sys.stderr.write(f"{told} (0.0 s)\n")
            return
        few = found is not None and len(found) <= MOST and not any("\n" in path for path in found)
        changed = "\n".join(found) if few and found is not None else None
    seeded = os.environ.get("PYTHONHASHSEED") == "0" or words[-1:] in (["--help"], ["-h"], ["--version"])
    if not seeded and not (changed and _no_rules(changed)):
        _again(changed)
    from labmake.cli.main import main as run
    from labmake.errors import Restart

    try:
        run(snapshot.question(words, here), changed, seeded)
    except Restart:
        _again(changed)


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        from labmake.errors import Misuse, format_error

        misuse = Misuse("the working directory no longer exists", [], ["change to one that does: cd"])
        sys.stderr.write(f"error: {format_error(misuse)}\n")
        sys.exit(misuse.code)


def _no_rules(changed: str) -> bool:
    """Whether what changed is probably inputs and targets alone, so that no rule file will be run in this process."""
    return not any(path.startswith("/") or path.endswith(".py") for path in changed.split("\n"))


def _told_before() -> tuple[bool, str | None]:
    """What this process found before it was started again: whether it looked, and the paths, a line each."""
    by, _, paths = os.environ.pop(CHANGED, "").partition("\n")
    return by.rstrip("?") == str(os.getpid()), None if by.endswith("?") else paths


def _again(changed: str | None) -> None:
    """Start the interpreter again with the fixed seed."""
    os.environ[CHANGED] = f"{os.getpid()}?\n" if changed is None else f"{os.getpid()}\n{changed}"
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    main()

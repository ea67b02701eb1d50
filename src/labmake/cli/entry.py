"""Where the command begins: gear 1, then the command line in an interpreter with a fixed hash seed.

The seed is fixed so that a plan which iterates over a set decides the same again.
"""

import os
import sys


def main() -> None:
    """Tell that nothing has changed, or run the command line, in a new interpreter if this one's seed is random."""
    from labmake.engine import snapshot

    words, here = sys.argv[1:], os.getcwd()
    told = snapshot.unchanged(words, here)
    if told is not None:
        sys.stderr.write(f"{told} (0.0 s)\n")
        return
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    from labmake.cli.main import main as run

    run(snapshot.question(words, here))


if __name__ == "__main__":
    main()

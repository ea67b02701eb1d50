"""Where the command begins: with a fixed hash seed, so that a plan which iterates over a set decides the same again."""

import os
import sys


def main() -> None:
    """Run the command line, in a new interpreter first if this one's hash seed is random."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    from labmake.cli.main import main as run

    run()


if __name__ == "__main__":
    main()

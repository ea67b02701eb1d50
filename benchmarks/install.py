"""Install the peers (the extra `bench`) into the environment this runs in, and note why one could not be.

All at once, since then their requirements are weighed together; one by one if that fails.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def install(*requirements: str) -> str:
    """Install these; what pip said if it failed."""
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip() or "pip failed"


def main() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    peers = settings["project"]["optional-dependencies"]["bench"]
    failed = install(*peers)
    for peer in peers:
        name = re.match(r"[\w-]+", peer)[0]
        told = Path(sys.prefix) / f"absent-{name}.txt"
        told.unlink(missing_ok=True)
        if failed and (said := install(peer)):
            reason = said.splitlines()[-1].removeprefix("ERROR: ")
            told.write_text(f"cannot be installed ({reason})\n")
            print(f"{name} is left out: {reason}")


if __name__ == "__main__":
    main()

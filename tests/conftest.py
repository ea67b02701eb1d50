"""Fixtures: a space for stories."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from space import Space

# `make test` is a make itself: what it tells the makes below it would change what they print.
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "MAKE_TERMOUT", "MAKE_TERMERR"):
    os.environ.pop(name, None)


@pytest.fixture
def space(tmp_path: Path) -> Space:
    """A git repository with one experiment and nothing else."""
    made = Space(tmp_path / "project")
    (made.root / "scripts" / made.experiment).mkdir(parents=True)
    made.git("init", "-q")
    (made.root / ".gitignore").write_text("generated/\n__pycache__/\n")
    return made

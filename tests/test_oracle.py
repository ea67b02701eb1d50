"""The oracle in CI: 220 random histories, 40 with kill -9 at random moments, 20 with builds at once (see oracle.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHUNK = 10
"""Histories of one test: small enough that two workers share them evenly."""


def run(first: int, tmp_path: Path, *words: str, count: int = CHUNK) -> None:
    """Run a chunk of histories by the oracle's own command; what fails is printed, and its folder is left."""
    told = subprocess.run(
        [
            *(sys.executable, str(Path(__file__).with_name("oracle.py")), "--jobs", "1", "--keep", str(tmp_path)),
            *("--histories", str(count), "--seed", str(first), *words),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert told.returncode == 0 and f"{count} histories" in told.stdout, told.stdout


@pytest.mark.parametrize("first", range(0, 160, CHUNK))
def test_after_every_edit_the_tree_is_that_of_a_clean_build_and_nothing_ran_in_vain(first: int, tmp_path: Path) -> None:
    run(first, tmp_path, "--killed", "0", "--together", "0")


@pytest.mark.parametrize("first", range(1000, 1040, CHUNK))
def test_after_a_kill_at_any_moment_the_next_build_ends_right(first: int, tmp_path: Path) -> None:
    run(first, tmp_path, "--killed", "1", "--together", "0")


@pytest.mark.parametrize("first", range(2000, 2010, 5))
def test_builds_at_once_run_each_action_once_and_all_end_right(first: int, tmp_path: Path) -> None:
    run(first, tmp_path, "--killed", "0", "--together", "1", count=5)


@pytest.mark.parametrize("first", range(3000, 3010, 5))
def test_a_build_that_is_killed_or_interrupted_beside_others_takes_nothing_from_them(
    first: int, tmp_path: Path
) -> None:
    run(first, tmp_path, "--killed", "1", "--together", "1", count=5)

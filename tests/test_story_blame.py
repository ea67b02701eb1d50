"""Blame: which commit changed a target's content, and what in it did, told from traces without running anything."""

from __future__ import annotations

import re

import pytest
from space import Done, Space

FEATURES = "def features(raw, window):\n    return str(sum(map(int, raw.read_text().split())) * window)\n"

RULES = """
rule("data/features.txt", raw="./raw.txt", run=py("src/features.py:features", window={window}))
rule("data/answer.txt", features="data/features.txt", run=sh("echo answer $(cat {{features}}) > {{out}}"))
"""


def commit(space: Space, subject: str) -> str:
    """Commit everything; returns the hash as blame shows it."""
    space.git("add", "-A")
    space.git("commit", "-q", "--allow-empty", "-m", subject)
    return space.git("rev-parse", "HEAD").strip()[:10]


def rules(space: Space, window: int) -> None:
    space.write("script.py", RULES.format(window=window))


def blame(space: Space, *words: str, code: int = 0) -> Done:
    return space.run("blame", *words, code=code)


def files_of(space: Space) -> dict[str, tuple[int, bytes]]:
    """All files of the project and of labmake's facts: with their times and contents."""
    found = {}
    for path in space.root.rglob("*"):
        inside = path.relative_to(space.root).parts
        if path.is_file() and inside[0] != ".git":
            found[str(path)] = (path.stat().st_mtime_ns, path.read_bytes())
    return found


@pytest.fixture
def told(space: Space) -> Space:
    """A chain of two steps, built and committed."""
    rules(space, 2)
    space.write("./raw.txt", "1 2 3\n")
    space.write("src/features.py", FEATURES)
    space.build("data/answer.txt")
    commit(space, "First version")
    return space


def test_a_parameter_that_changed_is_found_with_its_commit_author_and_values(told: Space) -> None:
    rules(told, 3)
    told.build("data/answer.txt")
    guilty = commit(told, "A wider window")
    told.write("/notes.txt", "nothing\n")
    commit(told, "Notes")
    said = blame(told, "data/answer.txt")
    assert f"data/answer.txt changed in\n  {guilty}" in said
    assert "Story <story@example.org>  A wider window" in said
    assert re.search(r"data/features.txt  [0-9a-f]{12} → [0-9a-f]{12}\n  parameter  window  2 → 3\n", said.text)
    assert "-answer 12\n" in said and "+answer 18\n" in said

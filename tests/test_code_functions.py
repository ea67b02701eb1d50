"""Which edits of a project's Python change the identity of a function, and which do not: the table code_edits.txt."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from labmake.environment.code_files import CodeReader
from labmake.model import digest_of

STEP = "src/step.py"


@dataclass
class Edit:
    """One edit of the table: its verdict, what it is, and the files before and after it."""

    verdict: str
    what: str
    before: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)


def table() -> list[Edit]:
    """The edits of code_edits.txt."""
    edits: list[Edit] = []
    path = ""
    for line in (Path(__file__).parent / "code_edits.txt").read_text().splitlines():
        if line.startswith("=== "):
            verdict, _, what = line[4:].partition(": ")
            edits.append(Edit(verdict, what))
        elif line.startswith("@ "):
            path = line[2:]
            edits[-1].before[path] = edits[-1].after[path] = ""
        elif edits and line[:1] in (" ", "-", "+"):
            if line[0] != "+":
                edits[-1].before[path] += line[1:] + "\n"
            if line[0] != "-":
                edits[-1].after[path] += line[1:] + "\n"
    return edits


EDITS = table()


def identity(root: Path, files: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """What identifies run in src/step.py."""
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def digest(path: str) -> str:
        return digest_of((root / path).read_bytes())

    memo: dict[str, Any] = {}
    closure = CodeReader(root, digest, memo, []).function(STEP, "", "run")
    assert (
        CodeReader(root, digest, memo, []).function(STEP, "", "run") == closure
    )  # what is remembered is what was found
    return tuple((file.path, file.identity) for file in closure.files if file.identity)


@pytest.mark.parametrize("edit", EDITS, ids=[edit.what for edit in EDITS])
def test_an_edit_has_its_verdict(edit: Edit, tmp_path: Path) -> None:
    assert edit.before != edit.after and edit.verdict in ("must", "not", "may")
    first, second = identity(tmp_path / "before", edit.before), identity(tmp_path / "after", edit.after)
    assert edit.verdict == "may" or (first == second) is (edit.verdict == "not")


def test_the_table_has_no_edit_twice_and_none_is_lost() -> None:
    assert len({edit.what for edit in EDITS}) == len(EDITS) >= 150
    assert {edit.verdict for edit in EDITS} == {"must", "not", "may"}

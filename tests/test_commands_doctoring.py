"""`labmake doctor`: facts about machine and store; what is wrong is marked, explained, and the exit code says so."""

from __future__ import annotations

import os
import re
from pathlib import Path

from space import Space


def built(space: Space) -> Space:
    space.write(
        "script.py",
        'rule("data/x.txt", run=sh("echo small > {out}"))\n'
        'rule("data/y.bin", run=sh("head -c 50000 /dev/zero > {out}"))\n',
    )
    space.build()
    return space


def line(text: str, label: str) -> str:
    found = re.search(rf"^[ ?!] {re.escape(label)}  +(.*)$", text, re.MULTILINE)
    assert found is not None, f"{label} is not in:\n{text}"
    return found[1]


def test_a_sound_project_is_told_in_facts(space: Space) -> None:
    said = built(space).run("doctor").text
    assert line(said, "python").split()[0].count(".") == 2
    assert "pandoc" in line(said, "pandoc") and "typst" in line(said, "typst") and line(said, "git")
    for label in ("file system", "reflinks", "hard links", "time stamps", "free space", "clock", "R", "julia", "gpus"):
        assert line(said, label)
    assert line(said, "state file").startswith("2 targets known, 0 failing")
    assert "2 traces" in line(said, "segments")
    assert line(said, "verified").endswith("0 damaged") and said.endswith("all well\n")
    assert not [path for path in (space.root / ".git" / "labmake").iterdir() if path.name.startswith(".doctor")]


def test_it_works_outside_of_any_project_and_before_the_first_build(space: Space, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    assert "labmake init" in space.run("doctor", cwd=outside)
    assert "nothing was built yet" in space.run("doctor")


def test_damaged_results_are_found_and_the_exit_code_says_so(space: Space) -> None:
    store = built(space).root / ".git" / "labmake" / "store"
    (large,) = [path for path in (store / "blobs").rglob("*") if path.is_file()]
    os.chmod(large, 0o644)
    large.write_bytes(b"x" * 50000)
    said = space.run("doctor", code=5).text
    assert "1 damaged" in line(said, "verified") and str(large) in said and "something is wrong" in said


def test_a_damaged_state_file_is_told_with_what_mends_it(space: Space) -> None:
    built(space)
    (database,) = (space.root / ".git" / "labmake" / "state").glob("*.db")
    for path in database.parent.glob(f"{database.name}-*"):
        path.unlink()
    database.write_bytes(b"no database at all" * 1000)
    said = space.run("doctor", code=5).text
    assert database.name in said and "→" in said
    space.run("status")
    assert space.run("doctor").code == 0

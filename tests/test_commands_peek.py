"""`labmake peek`: what a running step has written so far, seen from another terminal."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from space import Space, wait_until
from terminal import Terminal

SCRIPT = """
rule("models/{{n}}/", raw="./raw.txt", run=sh(
    "cd {{out}}; mkdir logs; echo 'loss 0.5' > metrics.txt; printf 'a\\\\0b' > weights.bin; echo x > logs/1; "
    "ln -s /etc/passwd outside; echo ready >> {notes}; until test -e {gate}; do sleep 0.05; done; "
    "rm outside; echo 'loss 0.1' >> metrics.txt"))
rule("data/quiet.txt", run=sh("echo ready >> {notes}; until test -e {gate}; do sleep 0.05; done; touch {{out}}"))
rule("data/pair.csv", "data/pair.txt", run=sh(
    "echo 1 > {{out2}}; echo ready >> {notes}; until test -e {gate}; do sleep 0.05; done; touch {{out1}}"))
rule("data/bad.txt", run=sh("echo half > {{out}}; exit 3"))
source("data/taken.txt", "scripts/2026-01-02-Story/raw.txt")
"""


@pytest.fixture
def written(space: Space) -> Space:
    space.write("script.py", SCRIPT.format(notes=space.notes, gate=gate(space)))
    space.write("./raw.txt", "raw\n")
    return space


def gate(space: Space) -> Path:
    return space.root.parent / "gate"


@contextmanager
def running(space: Space, target: str) -> Iterator[None]:
    """While it is entered, the step of a target runs, has written, and waits."""
    build = space.start("build", target)
    wait_until(space.noted)
    wait_until(lambda: any(f.read_text() for f in (space.root / ".git/labmake/steps").glob("*/*/job")))
    try:
        yield
    finally:
        gate(space).touch()
        build.end()


def test_the_files_of_a_folder_target_are_listed_and_read_while_it_is_made(written: Space) -> None:
    with running(written, "models/1/"):
        text = written.run("peek", "models/1/").text
        assert "models/1/ runs for" in text
        assert [line.split()[:3] for line in text.splitlines()[1:]] == [
            ["models/1/metrics.txt", "9", "B"],
            ["models/1/outside", "11", "B"],
            ["models/1/weights.bin", "3", "B"],
            ["models/1/logs/1", "2", "B"],
        ]
        for path in ("metrics.txt", "models/1/metrics.txt"):
            assert written.run("peek", "models/1/", path).text == "loss 0.5\n"
        assert written.run("peek", "models/1/", "logs/1").text == "x\n"
        assert not written.exists("models/1/")
    assert written.read("models/1/metrics.txt") == "loss 0.5\nloss 0.1\n"


def test_what_is_not_there_or_lies_outside_is_not_printed(written: Space) -> None:
    with running(written, "models/1/"):
        for path in ("nothing.txt", "outside", "../../../../../etc/passwd", "/etc/passwd", "logs", ""):
            told = written.run("peek", "models/1/", path, code=2).text
            assert "has written no" in told and "metrics.txt" in told and "root:" not in told


def test_a_step_that_wrote_nothing_yet_and_one_of_several_outputs(written: Space) -> None:
    with running(written, "data/quiet.txt"):
        assert "nothing is written to its outputs yet" in written.run("peek", "quiet")
    gate(written).unlink()
    written.notes.unlink()
    with running(written, "data/pair.csv"):
        for target in ("pair.csv", "pair.txt"):
            assert "data/pair.txt" in written.run("peek", target)
        assert written.run("peek", "pair.csv", "pair.txt").text == "1\n"


def test_a_file_is_followed_to_the_end_of_the_step(written: Space) -> None:
    with running(written, "models/1/"):
        following = subprocess.Popen(
            [sys.executable, "-m", "labmake.cli.entry", "peek", "-f", "models/1/", "metrics.txt"],
            cwd=written.root,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert following.stdout is not None and following.stdout.readline() == "loss 0.5\n"
    assert following.communicate(timeout=60)[0] == "loss 0.1\n" and following.returncode == 0


def test_bytes_are_not_written_to_a_terminal(written: Space) -> None:
    with running(written, "models/1/"):
        assert "no text for a terminal" in "\n".join(Terminal(written, "peek", "models/1/", "weights.bin").end(code=2))
        assert written.run("peek", "models/1/", "weights.bin").text == "a\0b"


def test_what_does_not_run_is_told_with_what_is_known_of_it(written: Space) -> None:
    assert "never, here" in written.run("peek", "quiet")
    gate(written).touch()
    written.build("quiet")
    told = written.run("peek", "quiet").text
    assert (
        "data/quiet.txt is not running now" in told and "made      20" in told and "labmake logs data/quiet.txt" in told
    )
    written.build("bad", code=1)
    told = written.run("peek", "bad").text
    assert "failed" in told and "folder    .git/labmake/failed/" in told
    assert "is not running now" in written.run("peek", "quiet", "quiet.txt", code=2)


def test_mistakes_are_told(written: Space) -> None:
    assert "no rule makes nothing" in written.run("peek", "nothing", code=2)
    assert "is a source" in written.run("peek", "taken", code=2)
    assert "follows one file" in written.run("peek", "-f", "quiet", code=2)

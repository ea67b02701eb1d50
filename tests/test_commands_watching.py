"""`labmake watch`: a change of anything the build looked at builds again, whatever went wrong before, until Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from space import Running, Space, wait_until

SCRIPT = 'rule("data/upper.txt", raw="./raw.txt", run=py("src/model.py:upper"))\n'
MODEL = "from helper import change\n\ndef upper(raw):\n    return change(raw.read_text())\n"


class Watched:
    """A `labmake watch` that runs, and what it has said."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.running: Running = space.start("watch")
        self.rounds = 0
        self.settled()

    def said(self) -> str:
        return self.running.text

    def settled(self) -> str:
        """Wait until one more build has ended; returns all that was said."""
        self.rounds += 1
        wait_until(lambda: self.said().count("watching ") >= self.rounds or self.running.process.poll() is not None)
        assert self.running.process.poll() is None, self.said()
        return self.said()

    def until(self, name: str, content: str) -> None:
        """Wait until a target has this content."""
        wait_until(lambda: self.space.exists(name) and self.space.read(name) == content)
        self.rounds = max(self.rounds, self.said().count("watching "))


@pytest.fixture
def watched(space: Space) -> Iterator[Watched]:
    space.write("script.py", SCRIPT)
    space.write("./raw.txt", "a")
    space.write("src/model.py", MODEL)
    space.write("src/helper.py", "def change(text):\n    return text.upper()\n")
    made = Watched(space)
    assert space.read("data/upper.txt") == "A"
    yield made
    if made.running.process.poll() is None:
        made.running.process.kill()
        made.running.process.wait()


def test_a_changed_source_code_file_or_rule_is_built_and_named(watched: Watched) -> None:
    space = watched.space
    space.write("./raw.txt", "b")
    watched.until("data/upper.txt", "B")
    assert f"changed: scripts/{space.experiment}/raw.txt" in watched.said()
    space.write("src/helper.py", "def change(text):\n    return text.upper() * 3\n")
    watched.until("data/upper.txt", "BBB")
    space.write("script.py", SCRIPT + 'rule("data/more.txt", run=sh("echo more > {out}"))\n')
    watched.until("data/more.txt", "more\n")


def test_a_broken_rule_file_or_a_failing_step_is_told_and_watched_until_it_is_mended(watched: Watched) -> None:
    space = watched.space
    space.write("script.py", "rule(")
    wait_until(lambda: "is no valid Python" in watched.said())
    space.write("script.py", SCRIPT.replace("upper.txt", "again.txt"))
    watched.until("data/again.txt", "A")
    space.write("src/helper.py", "def change(text):\n    raise ValueError('not today')\n")
    wait_until(lambda: "not today" in watched.said())
    space.write("src/helper.py", "def change(text):\n    return 'mended'\n")
    watched.until("data/again.txt", "mended")


def test_nothing_is_built_while_nothing_changes_and_ctrl_c_ends_it(watched: Watched) -> None:
    import time

    time.sleep(1.5)
    assert watched.said().count("watching ") <= 2  # the first build may have written a file that it looked at
    watched.running.interrupt()
    done = watched.running.end(code=0)
    assert "Traceback" not in done

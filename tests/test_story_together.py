"""Several builds at once: each step runs once, all succeed, and a killed build blocks nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from space import Space, wait_until

FANOUT = """
rule("data/folds.json", run=sh("echo folds >> {log}; seq -s, 1 12 | sed 's/.*/[&]/' > {{out}}"))
rule("data/fits/{{fold}}.txt", row="data/folds.json#{{fold}}",
     run=sh("echo fit{{fold}} >> {log}; sleep 0.2; echo fit $(cat {{row}}) > {{out}}"))
rule("data/all.txt", fits=each("data/fits/{{fold}}.txt", fold="data/folds.json"),
     run=sh("echo all >> {log}; cat {{fits}} > {{out}}"))
"""
EXPECTED = ["all", *sorted(f"fit{k}" for k in range(1, 13)), "folds"]


def worktree(space: Space, name: str) -> Space:
    """A second, linked worktree of a space on a branch of its own."""
    folder = space.root.parent / name
    space.git("worktree", "add", "-q", "-b", name, str(folder))
    return Space(folder, space.experiment)


@pytest.fixture
def log(space: Space) -> Path:
    path = space.root.parent / "ran.log"
    space.write("script.py", FANOUT.format(log=path))
    space.git("add", ".")
    space.git("commit", "-qm", "experiment")
    return path


def test_three_builds_in_one_worktree_run_each_step_once(space: Space, log: Path) -> None:
    builds = [space.start("build", "-j2") for _ in range(3)]
    for build in builds:
        build.end(0)
    assert sorted(log.read_text().split()) == EXPECTED
    assert space.read("data/all.txt").split("\n")[11] == "fit 12"
    space.build()
    assert space.ran == [] and "up to date" in space.last


def test_builds_in_two_worktrees_run_each_step_once_and_both_have_all_files(space: Space, log: Path) -> None:
    other = worktree(space, "other")
    builds = [space.start("build", "-j2"), other.start("build", "-j2"), other.start("build", "-j1")]
    for build in builds:
        build.end(0)
    assert sorted(log.read_text().split()) == EXPECTED
    assert space.files() == other.files()


def test_a_killed_build_blocks_nobody(space: Space, log: Path) -> None:
    killed = space.start("build", "-j2")
    wait_until(lambda: log.exists() and "fit" in log.read_text())
    waiting = space.start("build", "-j2")
    killed.kill()
    waiting.end(0)
    assert space.read("data/all.txt").count("fit") == 12
    space.build()
    assert space.ran == []


def test_an_interrupted_build_leaves_its_waiting_twin_to_finish(space: Space, log: Path) -> None:
    first = space.start("build", "-j1")
    wait_until(lambda: log.exists() and "fit" in log.read_text())
    second = space.start("build", "-j1")
    first.interrupt()
    first.end(130)
    second.end(0)
    assert sorted(log.read_text().split()) == EXPECTED


def test_a_step_that_fails_in_one_build_is_tried_by_the_one_that_waited(space: Space) -> None:
    flag = space.root.parent / "flag"
    space.write("script.py", f"""rule("data/x", run=sh("sleep 0.5; test -e {flag} && echo x > {{out}}"))""")
    first = space.start("build")
    wait_until(lambda: any((space.root / ".git" / "labmake" / "leases").glob("*")))
    second = space.start("build")
    first.end(1)
    flag.write_text("")
    second.end(0)
    assert space.read("data/x") == "x\n"

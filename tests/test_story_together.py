"""Several builds at once: each step runs once, all succeed, and a killed build blocks nobody."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from space import Running, Space, wait_until

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


# Beside a build that runs -------------------------------------------------------------------------------------------


def gated(space: Space, more: str = "") -> Path:
    """A rule `slow.txt` whose step waits for a file, and others that were made before; returns that file."""
    gate = space.root.parent / "go"
    space.write("./raw.txt", "1\n")
    rules = f"""
        rule("quick.txt", raw="./raw.txt", run=sh("echo quick >> {space.notes}; cat {{raw}} > {{out}}"))
        rule("folder/", raw="./raw.txt", run=sh("mkdir -p {{out}}; cp {{raw}} {{out}}/a; cp {{raw}} {{out}}/b"))
        """
    space.write("script.py", rules)
    space.build()
    step = f"until [ -e {gate} ]; do sleep 0.02; done"
    space.write(
        "script.py",
        rules
        + f"""
        rule("slow.txt", run=sh("echo slow >> {space.notes}; {step}; echo slow > {{out}}"))
        rule("all.txt", s="slow.txt", q="quick.txt", f="folder/", run=sh("cat {{s}} {{q}} {{f}}/* > {{out}}"))
        """,
    )
    return gate


def begun(space: Space, *words: str) -> Running:
    """A build whose slow step runs."""
    build = space.start("build", "-j2", *words)
    wait_until(lambda: "slow" in space.noted())
    return build


def test_status_tells_what_lies_there_while_a_build_runs(space: Space) -> None:
    gate = gated(space)
    build = begun(space)
    told = space.run("status")
    assert "2 up to date, 1 would run" in told and "slow.txt" in told
    gate.touch()
    build.end(0)


def test_what_clean_takes_away_during_a_build_is_restored_by_the_next(space: Space) -> None:
    gate = gated(space)
    build = begun(space)
    assert "2 removed" in space.run("clean")
    assert list(space.files()) == []
    gate.touch()
    build.end(0)
    assert space.files() == {"slow.txt": "slow\n", "all.txt": "slow\n1\n1\n1\n"}
    space.build()
    assert space.ran == [] and space.restored == ["folder/", "quick.txt"]


def test_restore_puts_back_what_was_edited_while_a_build_runs(space: Space) -> None:
    gate = gated(space)
    build = begun(space)
    space.path("quick.txt").write_text("edited")
    assert "1 restored" in space.run("restore", "quick.txt")
    gate.touch()
    build.end(0)
    assert space.read("quick.txt") == "1\n"
    space.build()
    assert space.ran == []


def test_keep_while_a_build_runs_disturbs_neither(space: Space) -> None:
    gate = gated(space)
    build = begun(space, "slow.txt")
    text = space.path("script.py").read_text()
    space.write("script.py", text.replace("cat {raw} > {out}", "cat {raw} | cat > {out}"))
    assert "kept quick.txt" in space.run("keep", "quick.txt", "-m", "same numbers")
    gate.touch()
    build.end(0)
    space.build()
    assert space.ran == ["all.txt"] and space.noted() == ["quick", "slow"]


def test_a_collection_waits_for_the_build_and_takes_nothing_that_it_made(space: Space) -> None:
    gate = gated(space)
    space.write("./raw.txt", "2\n")
    build = begun(space)
    collection = space.start("gc", "--keep-days", "0", "-y")
    wait_until(lambda: "waiting until running labmake commands have ended" in collection.text)
    beside = space.start("build", "quick.txt")
    beside.end(0)
    assert collection.process.poll() is None
    gate.touch()
    build.end(0)
    assert "removed" in collection.end(0)
    space.run("clean")
    space.build()
    assert space.ran == [] and space.read("all.txt") == "slow\n2\n2\n2\n"


def test_who_waits_for_a_stopped_build_says_so_and_all_succeed_once_it_goes_on(space: Space, log: Path) -> None:
    gate = gated(space)
    space.git("add", ".")
    space.git("commit", "-qm", "gated")
    other = worktree(space, "other")
    stopped = begun(space)
    stopped.signal(signal.SIGSTOP)
    here, there = space.start("build"), other.start("build")
    number = stopped.process.pid
    waits = f"waiting   slow.txt: another build makes it (process {number}, which is stopped)"
    wait_until(lambda: waits in here.text)
    wait_until(lambda: f"another build makes it in {space.root} (process {number}, which is stopped)" in there.text)
    doctor = space.run("doctor", code=None).text
    assert f"? running build     process {number} makes slow.txt\n" in doctor and f"kill -CONT {number}" in doctor
    gate.touch()
    assert here.process.poll() is None and there.process.poll() is None
    stopped.signal(signal.SIGCONT)
    for build in (stopped, here, there):
        build.end(0)
    assert space.noted().count("slow") == 1 and space.files() == other.files()


def test_three_builds_that_remove_the_same_stale_targets_all_succeed(space: Space) -> None:
    rules = """
        rule("keys.json", n="./n.txt", run=sh("seq -s, $(cat {n}) | sed 's/.*/[&]/' > {out}"))
        rule("d/{k}/x.txt", k_="keys.json#{k}", run=sh("cp {k_} {out}"))
        rule("f/{k}/", k_="keys.json#{k}", run=sh("mkdir -p {out}; cp {k_} {out}/a; cp {k_} {out}/b"))
        rule("all.txt", d=each("d/{k}/x.txt", k="keys.json"), f=each("f/{k}/", k="keys.json"),
             run=sh("cat {d} > {out}"))
        """
    space.write("script.py", rules)
    for number in ("40", "1", "40", "2"):
        space.write("./n.txt", number)
        builds = [space.start("build", "-j2") for _ in range(3)]
        for build in builds:
            build.end(0)
        assert len(space.files()) == 2 + 3 * int(number)


def test_an_edit_that_two_builds_give_up_is_set_aside_once(space: Space) -> None:
    space.write(
        "script.py", 'rule("{n}.txt", run=sh("echo {n} > {out}"))\ngroup("all", *map("{}.txt".format, range(30)))'
    )
    space.build("all")
    for number in range(30):
        space.path(f"{number}.txt").write_text(f"edited {number}")
    builds = [space.start("build", "--discard-edits", "-y", "all") for _ in range(3)]
    for build in builds:
        build.end(0)
    aside = [path.read_text() for path in (space.root / ".git" / "labmake" / "aside").rglob("*.txt")]
    edits = sorted(text for text in aside if text.startswith("edited"))
    assert edits == sorted(f"edited {number}" for number in range(30))
    assert space.files() == {f"{number}.txt": f"{number}\n" for number in range(30)}


def test_a_killed_build_is_not_taken_for_a_running_one(space: Space) -> None:
    gated(space)
    build = begun(space)
    assert f"running build     process {build.process.pid} makes slow.txt" in space.run("doctor", code=None)
    build.kill()
    assert "running build" not in space.run("doctor", code=None)


def test_an_interrupt_while_the_command_begins_or_ends_shows_no_traceback(space: Space) -> None:
    space.write(
        "script.py", 'rule("{n}.txt", run=sh("echo {n} > {out}"))\ngroup("all", *map("{}.txt".format, range(9)))'
    )
    for _ in range(6):
        build = space.start("build", "-f", "all")
        wait_until(lambda: "9 made" in build.text or build.process.poll() is not None)  # noqa: B023
        build.signal(signal.SIGINT)
        build.end(None)
        assert "Traceback" not in build.text and build.process.returncode in (0, 130, -signal.SIGINT)
    assert list((space.root / ".git" / "labmake" / "steps").iterdir()) == []

"""Steps as they run: what they see, how many at once, what they book, and how a build ends early and goes on."""

from __future__ import annotations

import os
import re
import shutil
import sys

import psutil
import pytest
from space import Space, wait_until

# What a step sees ----------------------------------------------------------------------------------------------------


def test_an_undeclared_read_fails_with_a_hint_in_every_language(space: Space) -> None:
    space.write("./near.txt", "near")
    space.write(
        "script.py",
        """
        rule("sh.txt", name="./name.txt", run=sh("cat $(cat {name}) > {out}"))
        rule("py.txt", run=py("src/undeclared.py:read"))
        rule("import.txt", run=py("src/undeclared.py:load"))
        """,
    )
    space.write("./name.txt", "near.txt")
    space.write(
        "src/undeclared.py",
        """
        import importlib

        def read():
            return open("near" + ".txt").read()

        def load():
            return importlib.import_module("help" + "er").word
        """,
    )
    space.write("src/helper.py", "word = 'help'\n")
    done = space.build(code=1)
    assert "3 failed" in done and space.files() == {}
    assert "add the file as an input, or as code=[…]" in done
    assert "name near.txt as an input of the rule" in done
    assert 'add code=["src/helper.py"] to the rule' in done
    space.write(
        "script.py",
        """
        rule("sh.txt", name="./name.txt", near="./near.txt", run=sh("cat $(cat {name}) > {out}"))
        rule("py.txt", near="./near.txt", run=py("src/undeclared.py:near"))
        rule("import.txt", run=py("src/undeclared.py:load"), code=["src/helper.py"])
        """,
    )
    with space.path("src/undeclared.py").open("a") as file:
        file.write("\ndef near(near):\n    return open('near.txt').read()\n")
    space.build()
    assert space.files() == {"sh.txt": "near", "py.txt": "near", "import.txt": "help"}


def test_what_a_step_writes_elsewhere_is_dropped_with_a_note(space: Space) -> None:
    space.write(
        "script.py",
        'rule("x.txt", raw="./raw.txt", run=sh("cat {raw} > {out}; echo a > left.log; mkdir more; touch more/b.log"))',
    )
    space.write("./raw.txt", "raw")
    done = space.build()
    assert "it also wrote left.log, more/: no outputs, so they were dropped" in done
    assert space.files() == {"x.txt": "raw"}
    assert not list(space.root.rglob("*.log"))


def test_a_step_cannot_spoil_its_source(space: Space) -> None:
    space.write(
        "script.py", 'rule("x.txt", raw="./raw.txt", run=sh("rm -f {raw}; echo spoiled > {raw}; cat {raw} > {out}"))'
    )
    space.write("./raw.txt", "raw")
    space.build()
    assert space.read("./raw.txt") == "raw" and space.read("x.txt") == "spoiled\n"


def test_a_failed_step_leaves_the_old_output_and_keeps_its_folder(space: Space) -> None:
    script = 'rule("x.txt", raw="./raw.txt", run=sh("echo half > {out}; grep -q good {raw}; cat {raw} > {out}"))'
    space.write("script.py", script)
    space.write("./raw.txt", "good")
    space.build()
    space.write("./raw.txt", "bad")
    done = space.build(code=1)
    assert space.read("x.txt") == "good"
    (folder,) = re.findall(r"^ *folder +(.*)$", done.text, re.MULTILINE)
    assert (space.root / folder / "x.txt").read_text() == "half\n"
    space.write("./raw.txt", "good")
    space.build()
    assert space.ran == []


@pytest.mark.parametrize("size", [10, 3 << 20])
def test_a_source_edited_while_its_step_runs(space: Space, size: int) -> None:
    """The step sees the old content, or is run again; the next build is right in any case."""
    gate = space.notes.with_name("gate")
    space.write(
        "script.py",
        f"""
        rule("x.txt", raw="./raw.txt",
             run=sh("echo go >> {space.notes}; until test -e {gate}; do sleep 0.05; done; head -c 3 {{raw}} > {{out}}"))
        rule("y.txt", x="x.txt", raw="./raw.txt", run=sh("cat {{x}} > {{out}}; head -c 3 {{raw}} >> {{out}}"))
        """,
    )
    raw = space.write("./raw.txt", "old" + "x" * size)
    running = space.start("build")
    wait_until(space.noted)
    with raw.open("r+") as file:
        file.write("new")
    gate.touch()
    running.end()
    assert space.read("x.txt") in ("old", "new") and space.read("y.txt")[:3] == space.read("x.txt")
    space.build()
    assert space.read("x.txt") == "new" and space.read("y.txt") == "newnew"
    space.build()
    assert space.ran == []


def test_code_edited_while_its_step_runs(space: Space) -> None:
    gate = space.notes.with_name("gate")
    space.write("script.py", 'rule("x.txt", run=py("src/slow.py:make"))')
    code = f"""
        import os, time

        def make():
            open("{space.notes}", "a").write("started\\n")
            while not os.path.exists("{gate}"):
                time.sleep(0.05)
            import other
            return other.WORD
        """
    space.write("src/slow.py", code)
    space.write("src/other.py", "WORD = 'old'\n")
    running = space.start("build")
    wait_until(space.noted)
    space.write("src/other.py", "WORD = 'new'\n")
    gate.touch()
    running.end()
    assert space.read("x.txt") == "old"
    space.build()
    assert space.ran == ["x.txt"] and space.read("x.txt") == "new"


# Keep going ----------------------------------------------------------------------------------------------------------

FAILING = """
rule("a.txt", run=sh("exit 1"))
rule("b.txt", a="a.txt", run=sh("cat {a} > {out}"))
rule("c.txt", run=sh("echo c > {out}"))
rule("d.txt", c="c.txt", run=sh("cat {c} > {out}"))
"""


def test_what_does_not_need_a_failed_step_is_made(space: Space) -> None:
    space.write("script.py", FAILING)
    done = space.build(code=1)
    assert space.ran == ["c.txt", "d.txt"]
    assert "1 failed" in done and "1 not made, since they need what failed" in done


def test_fail_fast_stops_at_the_first_failure(space: Space) -> None:
    space.write("script.py", FAILING)
    space.build("--fail-fast", "-j1", code=1)
    assert "d.txt" not in space.ran and not space.exists("d.txt")
    space.write("script.py", FAILING.replace("exit 1", "echo a > {out}"))
    space.build()
    assert space.files() == {"a.txt": "a\n", "b.txt": "a\n", "c.txt": "c\n", "d.txt": "c\n"}


# Interrupted ---------------------------------------------------------------------------------------------------------


def slow(space: Space) -> str:
    """Two steps that write their process id and wait for a gate, and one after them."""
    wait = f"echo $$ >> {space.notes}; until test -e {space.notes}.gate; do sleep 0.05; done"
    return f"""
    rule("first.txt", run=sh("echo first > {{out}}"))
    rule("slow/{{n}}.txt", first="first.txt", run=sh("{wait}; echo {{n}} > {{out}}"))
    rule("all.txt", parts=each("slow/{{n}}.txt", n=[1, 2, 3]), run=sh("cat {{parts}} > {{out}}"))
    """


def open_gate(space: Space) -> None:
    space.notes.with_name("notes.gate").touch()


def gone(space: Space) -> bool:
    """Whether none of the noted processes runs (one that nobody has waited for does not run)."""
    for pid in space.noted():
        try:
            if psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            pass
    return True


def test_the_first_interrupt_finishes_what_runs_and_starts_nothing(space: Space) -> None:
    space.write("script.py", slow(space))
    running = space.start("build", "-j2")
    wait_until(lambda: len(space.noted()) == 2)
    running.interrupt()
    wait_until(lambda: "interrupted" in running.text)
    assert not gone(space)
    open_gate(space)
    running.end(130)
    assert space.ran == ["first.txt", "slow/1.txt", "slow/2.txt"] and len(space.noted()) == 2
    space.build()
    assert space.ran == ["all.txt", "slow/3.txt"] and space.read("all.txt") == "1\n2\n3\n"


def test_the_second_interrupt_stops_what_runs(space: Space) -> None:
    space.write("script.py", slow(space))
    running = space.start("build", "-j2")
    wait_until(lambda: len(space.noted()) == 2)
    running.interrupt()
    wait_until(lambda: "interrupted" in running.text)
    running.interrupt()
    done = running.end(130)
    wait_until(lambda: gone(space))
    assert space.ran == ["first.txt"] and "Traceback" not in done
    assert "nothing failed" in space.run("failures")
    open_gate(space)
    space.build()
    assert space.ran == ["all.txt", "slow/1.txt", "slow/2.txt", "slow/3.txt"]


def test_after_kill_9_no_step_runs_on_and_the_next_build_goes_on(space: Space) -> None:
    space.write("script.py", slow(space))
    running = space.start("build", "-j2")
    wait_until(lambda: len(space.noted()) == 2)
    running.kill()
    wait_until(lambda: gone(space))
    open_gate(space)
    space.build()
    assert space.ran == ["all.txt", "slow/1.txt", "slow/2.txt", "slow/3.txt"]
    assert space.read("all.txt") == "1\n2\n3\n"
    space.build()
    assert space.ran == [] and space.restored == []
    left = os.listdir(space.root / ".git/labmake/steps")
    assert left == []


def test_a_step_that_finished_before_kill_9_does_not_run_again(space: Space) -> None:
    space.write(
        "script.py",
        f"""
        rule("{{n}}.txt", run=sh("echo {{n}} >> {space.notes}; test {{n}} = 1 || sleep 300; echo {{n}} > {{out}}"))
        rule("all.txt", parts=each("{{n}}.txt", n=[1, 2]), run=sh("cat {{parts}} > {{out}}"))
        """,
    )
    running = space.start("build", "-j1")
    wait_until(lambda: "2" in space.noted())
    running.kill()
    space.build("1.txt")
    assert space.ran == [] and space.read("1.txt") == "1\n"


def test_an_output_that_is_edited_while_its_step_runs_is_kept(space: Space) -> None:
    space.write("script.py", slow(space))
    running = space.start("build", "slow/1.txt")
    wait_until(space.noted)
    space.write("slow/1.txt", "mine\n")
    open_gate(space)
    assert "slow/1.txt was edited" in running.end(3)
    assert space.read("slow/1.txt") == "mine\n"
    space.build("slow/1.txt", "--discard-edits")
    assert space.ran == [] and space.read("slow/1.txt") == "1\n"


def test_two_builds_at_once_do_not_disturb_each_other(space: Space) -> None:
    space.write("script.py", slow(space))
    first = space.start("build", "-j3")
    wait_until(lambda: len(space.noted()) == 3)
    open_gate(space)
    space.build("-j2")
    first.end()
    assert space.read("all.txt") == "1\n2\n3\n"
    space.build()
    assert space.ran == [] and space.restored == []


def test_labmake_in_a_step_is_refused(space: Space) -> None:
    space.write(
        "script.py", f'rule("x.txt", run=sh("{sys.executable} -m labmake.cli.entry build y.txt; touch {{out}}"))'
    )
    assert "labmake was started inside a step" in space.build(code=1)


# How many at once, and what they book --------------------------------------------------------------------------------


def overlapping(space: Space) -> int:
    """The largest number of steps that ran at once, from their notes."""
    now = most = 0
    for line in space.noted():
        now += 1 if line.startswith("start") else -1
        most = max(most, now)
    return most


def noting(space: Space, options: str = "", together: int = 1) -> str:
    """Four steps that note their start and end; each waits until `together` have started, and a moment more."""
    wait = f"until test $(grep -c start {space.notes}) -ge {together}; do sleep 0.05; done; sleep 0.2"
    note = f"echo start >> {space.notes}; {wait}; echo end >> {space.notes}; echo {{n}} > {{out}}"
    return f"""
    rule("{{n}}.txt", run=sh("{note}"){options})
    rule("all.txt", parts=each("{{n}}.txt", n=[1, 2, 3, 4]), run=sh("cat {{parts}} > {{out}}"))
    """


@pytest.mark.parametrize("jobs", [1, 2])
def test_j_says_how_many_steps_run_at_once(space: Space, jobs: int) -> None:
    space.write("script.py", noting(space, together=jobs))
    space.build("-j", str(jobs))
    assert len(space.noted()) == 8 and overlapping(space) == jobs


def test_cpus_are_booked(space: Space) -> None:
    space.write("script.py", noting(space, ", cpus=2"))
    space.build("-j3")
    assert overlapping(space) == 1


def test_memory_is_booked(space: Space) -> None:
    half = psutil.virtual_memory().total // 2 + 1
    space.write("script.py", noting(space, f', memory="{half}"'))
    space.build("-j4")
    assert overlapping(space) == 1


def test_a_step_is_told_how_many_threads_it_has_booked(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("one.txt", run=sh("echo $OMP_NUM_THREADS > {out}"))
        rule("three.txt", run=sh("echo $OMP_NUM_THREADS $OPENBLAS_NUM_THREADS > {out}"), cpus=3)
        """,
    )
    space.build("-j4")
    assert space.files() == {"one.txt": "1\n", "three.txt": "3 3\n"}


def test_steps_at_once_get_different_gpus_and_others_none(space: Space) -> None:
    script = noting(space, ", gpus=1", together=2).replace("echo {n}", "echo $CUDA_VISIBLE_DEVICES")
    space.write(
        "script.py",
        script
        + """
    rule("both.txt", run=sh("echo $CUDA_VISIBLE_DEVICES > {out}"), gpus=2)
    rule("none.txt", run=sh("echo none: $CUDA_VISIBLE_DEVICES > {out}"))
    """,
    )
    space.build("all.txt", "-j4", env={"CUDA_VISIBLE_DEVICES": "4,7"})
    assert overlapping(space) == 2
    assert set(space.read("all.txt").split()) == {"4", "7"}
    space.build(env={"CUDA_VISIBLE_DEVICES": "4,7"})
    assert space.read("both.txt") == "4,7\n" and space.read("none.txt") == "none:\n"


def test_a_step_that_asks_for_more_than_there_is_is_refused(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("gpu.txt", run=sh("touch {out}"), gpus=2)
        rule("huge.txt", run=sh("touch {out}"), memory="9000T")
        rule("cpus.txt", run=sh("touch {out}"), cpus=1000)
        """,
    )
    done = space.build(code=1, env={"CUDA_VISIBLE_DEVICES": "0"})
    assert "more gpus than this machine has" in done and "more memory than this machine has" in done
    assert space.ran == ["cpus.txt"]


def test_resources_are_no_part_of_the_action(space: Space) -> None:
    space.write("script.py", 'rule("x.txt", run=sh("touch {out}"))')
    space.build()
    space.write("script.py", 'rule("x.txt", run=sh("touch {out}"), cpus=2, memory="1G", time="1h")')
    space.build()
    assert space.ran == []


def test_a_step_that_exceeds_its_time_is_stopped_with_all_it_started(space: Space) -> None:
    space.write(
        "script.py",
        f'rule("x.txt", run=sh("echo $$ >> {space.notes}; (sleep 300; touch x.txt) & wait; touch x.txt"), time="1s")',
    )
    assert "exceeded its time (1 s)" in space.build(code=1)
    assert gone(space) and not space.exists("x.txt")


def test_a_step_that_is_killed_says_by_which_signal(space: Space) -> None:
    space.write("script.py", 'rule("x.txt", run=sh("kill -KILL $$"))')
    assert "was killed by SIGKILL" in space.build(code=1)


def test_what_a_step_leaves_running_ends_with_it(space: Space) -> None:
    space.write("script.py", f'rule("x.txt", run=sh("sleep 300 & echo $! >> {space.notes}; touch {{out}}"))')
    space.build()
    wait_until(lambda: gone(space))


def test_a_lost_store_is_made_again(space: Space) -> None:
    space.write(
        "script.py", 'rule("x.txt", run=sh("echo x > {out}"))\nrule("y.txt", x="x.txt", run=sh("cat {x} > {out}"))'
    )
    space.build()
    shutil.rmtree(space.root / ".git/labmake")
    shutil.rmtree(space.root / "generated")
    space.build()
    assert space.ran == ["x.txt", "y.txt"] and space.read("y.txt") == "x\n"

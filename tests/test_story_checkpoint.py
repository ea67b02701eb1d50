"""A step with a checkpoint: what it wrote there survives failures, kills and the death of its build."""

from __future__ import annotations

import pytest
from space import Space, wait_until

TRAIN = """
rule("model.txt", x="./x.txt", checkpoint=True, run=py("train.py:train"), retries=RETRIES)
"""

EPOCHS = """
import os, sys, time
from pathlib import Path

def train(x: str, out):
    at = Path(os.environ["LABMAKE_CHECKPOINT"]) / "epoch"
    epoch = int(at.read_text()) if at.exists() else 0
    began = epoch
    while epoch < 4:
        epoch += 1
        at.write_text(str(epoch))
        if epoch == 2 and began == 0:
            FIRST
    out.write_text(f"{x.strip()} began at {began}, ended at {epoch}\\n")
"""


def write(space: Space, first: str, retries: int = 0) -> None:
    space.write("./x.txt", "x\n")
    space.write("script.py", TRAIN.replace("RETRIES", str(retries)))
    space.write("./train.py", EPOCHS.replace("FIRST", first))


def left(space: Space) -> list[str]:
    folder = space.root / ".git" / "labmake" / "checkpoints"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_step_that_fails_goes_on_from_its_checkpoint_in_the_next_build(space: Space) -> None:
    write(space, "sys.exit('out of memory')")
    done = space.build(code=1)
    assert "checkpoint" in done and "labmake build -f model.txt" in done
    space.build()
    assert space.read("model.txt") == "x began at 2, ended at 4\n"
    assert left(space) == []
    space.build()
    assert space.ran == []


def test_a_retry_goes_on_from_the_checkpoint(space: Space) -> None:
    write(space, "os.kill(os.getpid(), 9)", retries=1)
    space.build()
    assert space.read("model.txt") == "x began at 2, ended at 4\n"


def test_who_forces_the_step_begins_anew(space: Space) -> None:
    write(space, "sys.exit(1)")
    space.build(code=1)
    assert len(left(space)) == 1
    space.build("model.txt", "-f", code=1)
    space.build()
    assert space.read("model.txt") == "x began at 2, ended at 4\n"


def test_a_retry_of_a_forced_step_goes_on_from_its_first_attempt(space: Space) -> None:
    write(space, "sys.exit(1)", retries=1)
    space.build("model.txt", "-f")
    assert space.read("model.txt") == "x began at 2, ended at 4\n"


def test_another_action_has_another_checkpoint(space: Space) -> None:
    write(space, "sys.exit(1)")
    space.build(code=1)
    space.write("./x.txt", "y\n")
    space.build(code=1)
    assert len(left(space)) == 2
    space.build()
    assert space.read("model.txt") == "y began at 2, ended at 4\n"
    assert len(left(space)) == 1


def test_a_build_that_is_killed_loses_nothing_of_it(space: Space) -> None:
    write(space, "time.sleep(3600)")
    build = space.start("build")
    folder = space.root / ".git" / "labmake" / "checkpoints"
    wait_until(lambda: any(path.read_text() == "2" for path in folder.glob("*/epoch")))
    build.kill()
    build.end(code=None)
    space.build()
    assert space.read("model.txt") == "x began at 2, ended at 4\n"


def test_a_step_without_it_is_told_of_none(space: Space) -> None:
    space.write("script.py", 'rule("a.txt", run=sh("echo ${LABMAKE_CHECKPOINT:-none} > {out}"))\n')
    space.build(env={"LABMAKE_CHECKPOINT": "/tmp"})
    assert space.read("a.txt") == "none\n"


@pytest.mark.parametrize("value", ["1", "'yes'", "None"])
def test_it_takes_true_or_false(space: Space, value: str) -> None:
    space.write("script.py", f'rule("a.txt", checkpoint={value}, run=sh("date > {{out}}"))\n')
    done = space.build(code=2)
    assert "checkpoint= takes True or False" in done


def test_that_a_rule_has_a_checkpoint_reruns_nothing(space: Space) -> None:
    space.write("script.py", 'rule("a.txt", run=sh("echo 1 > {out}"))\n')
    space.build()
    space.write("script.py", 'rule("a.txt", checkpoint=True, run=sh("echo 1 > {out}"))\n')
    space.build()
    assert space.ran == []


def test_collection_takes_away_checkpoints_that_nobody_went_on_from(space: Space) -> None:
    write(space, "sys.exit(1)")
    space.build(code=1)
    assert "checkpoints of steps" not in space.run("gc", "-n")
    assert "checkpoints of steps" in space.run("gc", "--keep-days", "0", "-y")
    assert left(space) == []

"""The gears of a build that has little to do: a snapshot answers at once, a small change costs its own wave."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest
from space import Space

SMALL = """
import os
from helper import NAMES
for name in NAMES:
    rule(f"data/{name}.txt", x=f"./{name}.in", run=sh("cat {x} > {out}"))
rule("data/all.txt", parts=[f"data/{name}.txt" for name in NAMES], run=sh("cat {parts} > {out}"))
rule("data/found.txt", found=glob("./*.toml"), run=sh("echo {found} > {out}"))
@plan("data/asked.txt")
def asked():
    return step(run=sh("echo {word} > {out}", word=env("STORY_WORD", "none")))
rule("data/home.txt", run=sh("echo {word} > {out}", word=os.environ.get("STORY_LOADED", "none")))
rule("data/folder/", run=sh("mkdir -p {out}; echo 1 > {out}1; echo 2 > {out}2"))
"""


def first_gear(space: Space, *words: str) -> bool:
    """Whether the command was answered before the command line was even imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "labmake.cli.entry", *words],
        cwd=space.root,
        capture_output=True,
        text=True,
        check=True,
    )
    return "labmake.cli.main" not in done.stderr and "up to date" in done.stderr


def settle(space: Space) -> None:
    """Build until the snapshot stands: what is too young to be trusted is looked at again."""
    for _ in range(5):
        time.sleep(0.05)
        space.build()
        if first_gear(space, "build"):
            return
    raise AssertionError("no snapshot")


@pytest.fixture
def small(space: Space) -> Space:
    space.write("src/helper.py", 'NAMES = ["a", "b"]\n')
    for name in ("a", "b", "c"):
        space.write(f"./{name}.in", f"{name}\n")
    space.write("./one.toml", "")
    space.write("script.py", SMALL)
    space.build()
    settle(space)
    return space


def test_when_nothing_has_changed_nothing_is_imported_and_nothing_runs(small: Space) -> None:
    assert first_gear(small, "build")
    small.build()
    assert small.ran == [] and "up to date: 7 targets" in small.last


def test_another_question_is_not_answered_by_this_ones_snapshot(small: Space) -> None:
    assert not first_gear(small, "build", "-q")


CHANGES = {
    "a source": (lambda s: s.write("./a.in", "changed\n"), ["data/a.txt", "data/all.txt"]),
    "a deleted target": (lambda s: s.path("data/b.txt").unlink(), []),
    "a deleted file of a folder target": (lambda s: s.path("data/folder/2").unlink(), []),
    "a file more in a folder target": (lambda s: s.path("data/folder/3").write_text("x"), []),
    "a module that the rules import": (
        lambda s: s.write("src/helper.py", 'NAMES = ["a", "b", "c"]\n'),
        ["data/all.txt", "data/c.txt"],
    ),
    "a file more that glob finds": (lambda s: s.write("./two.toml", ""), ["data/found.txt"]),
    "a file less that glob finds": (lambda s: s.path("./one.toml").unlink(), ["data/found.txt"]),
    "a rule": (
        lambda s: s.path("script.py").write_text(s.read("script.py").replace("echo 1 >", "echo one >")),
        ["data/folder/"],
    ),
    "rules.py, which was not there": (
        lambda s: s.write("rules.py", 'rule("generated/{exp}/assets/more.txt", run=sh("touch {out}"))'),
        ["more.txt"],
    ),
    "a document, which was not there": (
        lambda s: s.write("note.md", "# Note\n"),
        ["outputs/note.html", "outputs/note.pdf"],
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_every_change_is_seen(small: Space, what: str) -> None:
    change, expected = CHANGES[what]
    change(small)
    small.build()
    assert small.ran == expected, small.last.text
    assert "up to date" not in small.last
    settle(small)
    assert small.ran == []


@pytest.mark.parametrize(("name", "target"), [("STORY_WORD", "data/asked.txt"), ("STORY_LOADED", "data/home.txt")])
def test_a_variable_that_was_asked_for_counts(small: Space, name: str, target: str) -> None:
    small.build(env={name: "new"})
    assert small.ran == [target]
    assert small.read(target) == "new\n"


def test_a_source_edited_in_place_with_its_time_put_back_is_seen(small: Space) -> None:
    path = small.path("./a.in")
    before = path.stat()
    path.write_text("z\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    small.build()
    assert small.ran == ["data/a.txt", "data/all.txt"]


FOLDER = """
rule("parts/", x="./in.txt", run=sh("mkdir -p {out}deep/empty; cp {x} {out}deep/1; cp {x} {out}2"))
rule("all.txt", parts="parts/", run=sh("sleep 0.2; %s find {parts} -type f | wc -l > {out}"))
"""


def test_a_first_build_with_a_folder_target_answers_the_next_one_at_once(space: Space) -> None:
    space.write("./in.txt", "x\n")
    space.write("script.py", FOLDER % "")
    time.sleep(0.05)
    space.build()
    assert first_gear(space, "build")


def test_a_file_that_came_into_a_folder_target_while_its_build_went_on_is_seen_by_the_next(space: Space) -> None:
    space.write("./in.txt", "x\n")
    foreign = space.path("parts/deep/foreign")
    space.write("script.py", FOLDER % f"touch {foreign};")
    time.sleep(0.05)
    space.build()
    assert foreign.exists() and not first_gear(space, "build")
    space.build()
    assert not foreign.exists()


# The wave -----------------------------------------------------------------------------------------------------------

MANY = 300

LARGE = f"""
for i in range({MANY}):
    rule(f"a/{{i}}.txt", x=f"./in/{{i}}.txt", run=sh("cat {{x}} > {{out}}"))
    rule(f"b/{{i}}.txt", x=f"a/{{i}}.txt", run=sh("cat {{x}} > {{out}}"))
rule("few.txt", parts=[f"b/{{i}}.txt" for i in range(3)], run=sh("cat {{parts}} > {{out}}"))
rule("folds.json", x="./in/k.txt", run=sh("seq -s, 1 $(cat {{x}}) | sed 's/.*/[&]/' > {{out}}"))
rule("fits/{{k}}.txt", row="folds.json#{{k}}", run=sh("cat {{row}} > {{out}}"))
rule("fits.txt", fits=each("fits/{{k}}.txt", k="folds.json"), run=sh("cat {{fits}} > {{out}}"))
@plan("chosen.txt")
def chosen():
    return step(x=f"b/{{read_text('./in/choice.txt').strip()}}.txt", run=sh("cat {{x}} > {{out}}"))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Space:
    """A project of 600 steps that was built once; the stories below follow each other."""
    space = Space(tmp_path_factory.mktemp("large") / "project")
    (space.root / "scripts" / space.experiment).mkdir(parents=True)
    space.git("init", "-q")
    for i in range(MANY):
        space.write(f"./in/{i}.txt", f"input {i}\n")
    space.write("./in/k.txt", "3")
    space.write("./in/choice.txt", "7\n")
    space.write("script.py", LARGE)
    space.build("-q")
    settle(space)
    return space


def whole(space: Space) -> dict[str, str]:
    """What all files should be, from the sources alone."""
    made = {}
    for i in range(MANY):
        made[f"a/{i}.txt"] = made[f"b/{i}.txt"] = space.read(f"./in/{i}.txt")
    made["few.txt"] = "".join(made[f"b/{i}.txt"] for i in range(3))
    k = int(space.read("./in/k.txt"))
    made["folds.json"] = "[" + ",".join(str(n) for n in range(1, k + 1)) + "]\n"
    made.update({f"fits/{n}.txt": f"{n}\n" for n in range(1, k + 1)})
    made["fits.txt"] = "".join(f"{n}\n" for n in range(1, k + 1))
    made["chosen.txt"] = made[f"b/{space.read('./in/choice.txt').strip()}.txt"]
    return made


STORY = [
    ("./in/77.txt", "changed\n", ["a/77.txt", "b/77.txt"]),
    ("./in/1.txt", "one\n", ["a/1.txt", "b/1.txt", "few.txt"]),
    ("./in/choice.txt", "9\n", ["chosen.txt"]),
    ("./in/9.txt", "chosen now\n", ["a/9.txt", "b/9.txt", "chosen.txt"]),
    ("./in/7.txt", "chosen no more\n", ["a/7.txt", "b/7.txt"]),
    ("./in/k.txt", "4", ["fits.txt", "fits/4.txt", "folds.json"]),
    ("./in/k.txt", "2", ["fits.txt", "folds.json"]),
    ("./in/77.txt", "input 77\n", []),
]


@pytest.mark.xdist_group("large")
def test_a_small_change_costs_its_own_wave_and_the_tree_is_right(large: Space) -> None:
    for name, text, expected in STORY:
        time.sleep(0.05)
        large.write(name, text)
        large.build()
        assert large.ran == expected, name
        assert large.files() == whole(large)
        large.build()
        assert large.ran == large.restored == []


@pytest.mark.xdist_group("large")
@pytest.mark.parametrize(("name", "interpreters"), [("./in/88.txt", 1), ("./in/choice.txt", 2)])
def test_a_wave_starts_a_second_interpreter_only_if_a_plan_has_to_run(
    large: Space, name: str, interpreters: int
) -> None:
    settle(large)
    large.write(name, "17\n")
    words = ["-X", "importtime", "-m", "labmake.cli.entry", "build"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONHASHSEED"}
    done = subprocess.run(
        [sys.executable, *words], cwd=large.root, env=environment, capture_output=True, text=True, check=True
    )
    assert len(re.findall(r"\| site$", done.stderr, re.MULTILINE)) == interpreters
    assert large.files() == whole(large)
    large.build()
    assert large.ran == []


@pytest.mark.xdist_group("large")
def test_a_wave_protects_an_edited_target_and_restores_a_deleted_one(large: Space) -> None:
    settle(large)
    large.path("b/5.txt").write_text("mine\n")
    large.path("b/6.txt").unlink()
    large.build(code=3)
    assert large.read("b/5.txt") == "mine\n" and large.read("b/6.txt") == "input 6\n"
    large.run("restore", "b/5.txt")
    large.build()
    assert large.ran == [] and large.files() == whole(large)

"""Steps that fail, and a disk that does not do what is asked: told in three parts, and nothing is lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from space import EXPERIMENT, Space, wait_until
from told import told

SCRIPT = f"scripts/{EXPERIMENT}/script.py"
OTHER = 'rule("data/other.txt", run=sh("echo other > {out}"))\n'


def fact(text: str, label: str) -> str:
    """The value of a fact of the first error that has it."""
    found = re.search(rf"^  {label} +(.*)$", text, re.MULTILINE)
    assert found, text
    return found[1]


# Shell steps. ------------------------------------------------------------------------------------------------------


def test_a_step_that_fails_shows_command_exit_code_last_lines_and_a_log_that_exists(space: Space) -> None:
    space.write(
        "script.py",
        OTHER
        + 'rule("data/a-{k}.txt", run=sh("seq 40; echo last >&2; exit 7"))\n'
        + 'rule("data/b.txt", x="data/a-1.txt", run=sh("cat {x} > {out}"))\n',
    )
    words = ("data/a-1.txt: the step failed", "k=1", "seq 40", "exit code   7", f"{SCRIPT}:4", "    40\n    last")
    text = told(space, *words, code=1)
    assert "    20\n" not in text
    assert (space.root / fact(text, "log")).read_text().endswith("40\nlast\n")
    assert (space.root / fact(text, "folder")).is_dir()
    assert space.ran == ["data/other.txt"] and "1 not made, since they need what failed" in space.last
    assert "last" in space.run("failures") and "last" in space.run("logs", "data/a-1.txt")


@pytest.mark.parametrize(
    ("output", "command", "words"),
    [
        ("data/a.txt", "true", ("did not write data/a.txt", "wrote     nothing", "{out}")),
        ("data/a.txt", "echo > other.txt", ("did not write data/a.txt", "wrote     other.txt")),
        ("data/a.txt", "mkdir {out}", ("did not write data/a.txt", "found there  a folder")),
        ("data/a.txt", "ln -s /etc/passwd {out}", ("did not write data/a.txt", "found there  a link")),
        ("data/a/", "rmdir data/a; echo > data/a", ("did not write data/a/", "wrote     data/a", "closing /")),
        ("data/a/", "ln -s /etc/passwd {out}link", ("data/a/", "link")),
        ("data/a.txt", "echo start; sleep 60", ("exceeded its time (1 s)", "last line  start", "time=")),
        ("data/a.txt", "kill -SEGV $$", ("killed by SIGSEGV",)),
        ("data/a.txt", "kill -9 $$", ("killed by SIGKILL", "out of memory")),
        ("data/a.txt", "kill -9 0", ("killed by SIGKILL",)),
        ("data/a.txt", "nosuchtool {out}", ("exit code  127", "nosuchtool: command not found", "install it")),
        ("data/a.txt", "cat data/undeclared.txt > {out}", ("No such file", "a step sees only what its rule names")),
        ("data/a.txt", f"{sys.executable} -m labmake.cli.entry", ("started inside a step", "a step cannot build")),
    ],
)
def test_a_step_that_goes_wrong_is_told_and_the_rest_is_built(
    space: Space, output: str, command: str, words: tuple[str, ...]
) -> None:
    space.write("script.py", OTHER + f"rule({output!r}, run=sh({command!r}), time='1s')\n")
    told(space, f"{SCRIPT}:4", *words, code=1)
    assert space.ran == ["data/other.txt"]
    assert not space.exists(output.rstrip("/"))


def test_binary_garbage_in_a_log_is_shown_in_printable_characters(space: Space) -> None:
    bytes_ = "".join(f"\\\\x{n:02x}" for n in range(256) if n != 10)
    space.write("script.py", f'rule("data/a.txt", run=sh("printf \'{bytes_}\'; exit 3"))\n')
    text = told(space, "exit code  3", code=1)
    assert all(c.isprintable() or c in "\n\t" for c in text)
    log = (space.root / fact(text, "log")).read_bytes()
    assert log == bytes(n for n in range(256) if n != 10)


@pytest.mark.parametrize(
    "command", ["yes abcdefghi | head -c 10000000 || true", "head -c 10000000 /dev/zero | tr '\\\\0' x"]
)
def test_ten_megabytes_of_log_do_not_drown_the_error(space: Space, command: str) -> None:
    space.write("script.py", f'rule("data/a.txt", run=sh("{command}; exit 3"))\n')
    text = told(space, "exit code", "log", code=1)
    assert len(text) < 8000
    assert os.path.getsize(space.root / fact(text, "log")) == 10_000_000


def test_a_step_that_prints_ten_megabytes_succeeds_and_its_log_is_kept_by_its_ends(space: Space) -> None:
    space.write(
        "script.py", 'rule("data/a.txt", run=sh("echo first; yes x | head -c 10000000 || true; echo z > {out}"))\n'
    )
    space.build()
    log = space.run("logs", "data/a.txt").text
    assert log.startswith("first\n") and 100_000 < len(log) < 6_000_000


@pytest.mark.parametrize(("option", "asked"), [("memory='900T'", "memory"), ("gpus=99", "gpus")])
def test_more_than_the_machine_has_is_refused_with_what_there_is(space: Space, option: str, asked: str) -> None:
    space.write("script.py", OTHER + f"rule('data/a.txt', {option}, run=sh('echo > {{out}}'))\n")
    told(space, f"more {asked} than this machine has", "asks for", "has", f"{SCRIPT}:4", code=1)
    assert space.ran == ["data/other.txt"]


def test_a_path_with_a_newline_is_refused_in_a_file_of_one_path_a_line(space: Space) -> None:
    space.write("./in/a\nb", "1")
    space.write("script.py", OTHER + "rule('data/a.txt', x=glob('./in/*'), run=sh('cat {x.list} > {out}'))\n")
    told(space, "newline", f"{SCRIPT}:4")
    assert space.ran == ["data/other.txt"]


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ('rule("data/a.txt", run=sh("exit 3"))\n', 1),
        ('rule("data/a.txt", run=sh("true"))\n', 1),
        ('rule("data/a.txt", x="./no.txt", run=sh("true"))\n', 2),
        ('rule("data/a.txt", x="data/no.txt", run=sh("true"))\n', 2),
        ('rule("data/a.txt", x="data/a.txt", run=sh("true"))\n', 2),
        ("1 / 0\n", 2),
    ],
)
def test_what_failed_is_told_again_by_the_next_call(space: Space, rules: str, code: int) -> None:
    space.write("script.py", OTHER + rules)
    first = told(space, code=code)
    assert re.sub(r"[0-9.]+ s", "", told(space, code=code)) == re.sub(r"[0-9.]+ s", "", first)
    assert space.ran == []
    space.write("script.py", OTHER)
    space.build()


# Python steps. -----------------------------------------------------------------------------------------------------

FUNCTIONS = """
def helper(x):
    raise ValueError("bad value")

def raises(x):
    return helper(x)

def nothing():
    pass

def wants(x, y):
    return "a"

def wrong():
    return {"a": 1}

def stops():
    raise SystemExit("not today")
"""
"""They begin on line 3 of a script: two lines of imports stand above."""


def test_an_exception_in_a_step_shows_the_users_frames_with_relative_paths(space: Space) -> None:
    space.write("script.py", FUNCTIONS + OTHER + 'rule("data/a.txt", run=py("script.py:raises", x=1))\n')
    words = ('File "script.py", line 7, in raises', 'File "script.py", line 4, in helper', "ValueError: bad value")
    text = told(space, *words, code=1)
    assert "pystep.py" not in text and "pycall.py" not in text and str(space.root) not in text
    assert space.ran == ["data/other.txt"]


@pytest.mark.parametrize(
    ("target", "recipe", "words"),
    [
        ("data/a.txt", "py('script.py:nothing')", ("returned nothing and wrote nothing", "`out`")),
        ("data/a.txt", "py('script.py:wants', x=1)", ("takes y, which its rule does not give", "add y=")),
        ("data/a.txt", "py('script.py:nothing', x=1)", ("does not take x, which its rule gives",)),
        ("data/a.csv", "py('script.py:wrong')", ("a dict cannot be written to a .csv file", ".json")),
        ("data/a.txt", "py('script.py:stops')", ("not today", "exit code  1")),
        ("data/a.txt", "script('script.py', 'nosuchinterpreter')", ("cannot start nosuchinterpreter", "install it")),
    ],
)
def test_a_recipe_that_goes_wrong_is_told(space: Space, target: str, recipe: str, words: tuple[str, ...]) -> None:
    space.write("script.py", FUNCTIONS + OTHER + f"rule({target!r}, run={recipe})\n")
    told(space, *words, code=1)
    assert space.ran == ["data/other.txt"] and not space.exists(target)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("py('src/m.py:laod')", ("src/m.py has no function laod", "load, save")),
        ("py('src/n.py:load')", ("src/n.py of a recipe does not exist", "src/m.py")),
        ("py('src/broken.py:load')", ("src/broken.py", "not valid Python", "src/broken.py:2")),
        ("script('src/n.jl', 'julia')", ("src/n.jl of a recipe does not exist",)),
    ],
)
def test_code_that_does_not_exist_is_found_before_anything_runs(
    space: Space, recipe: str, words: tuple[str, ...]
) -> None:
    space.write("src/m.py", "def load():\n    pass\n\ndef save():\n    pass\n")
    space.write("src/broken.py", "import os\ndef load(:\n")
    space.write("script.py", OTHER + f"rule('data/a.txt', run={recipe})\n")
    told(space, f"{SCRIPT}:4", *words)
    assert space.ran == [] and not space.exists("data/other.txt")


# What lies in a target's place. ------------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", ["folder", "full folder", "broken link", "link", "file"])
def test_what_labmake_did_not_make_is_kept_until_it_is_given_up_and_then_set_aside(space: Space, thing: str) -> None:
    space.write("script.py", OTHER + 'rule("data/a.txt", run=sh("echo a > {out}"))\n')
    place = space.path("data/a.txt")
    place.parent.mkdir(parents=True)
    if "folder" in thing:
        place.mkdir()
    if thing == "full folder":
        (place / "mine.txt").write_text("mine")
    if thing == "broken link":
        place.symlink_to("nowhere")
    if thing == "link":
        place.symlink_to(space.write("src/mine.txt", "mine"))
    if thing == "file":
        place.write_text("mine")
    told(space, "data/a.txt was edited, or was not made by labmake; it is kept", "--discard-edits", code=3)
    assert space.ran == ["data/other.txt"] and space.exists("data/a.txt")
    space.build("--discard-edits")
    assert space.read("data/a.txt") == "a\n"
    aside = [path for path in (space.root / ".git/labmake/aside").rglob("*.txt") if path.name == "a.txt"]
    assert len(aside) == 1
    assert thing != "full folder" or (aside[0] / "mine.txt").read_text() == "mine"
    assert thing != "link" or space.read("src/mine.txt") == "mine"


@pytest.mark.parametrize("place", ["data", "/generated"])
def test_a_file_where_a_folder_is_needed_is_kept(space: Space, place: str) -> None:
    space.write("script.py", 'rule("data/a.txt", run=sh("echo a > {out}"))\n')
    space.write(place, "mine")
    told(space, "a file stands where a folder is needed", "move it away", code=3)
    assert space.read(place) == "mine"


# The disk. ---------------------------------------------------------------------------------------------------------


def unprivileged() -> list[str] | None:
    """A prefix under which permissions count even for root, [] for other users, None where that cannot be had."""
    if os.geteuid() != 0:
        return []
    program = shutil.which("setpriv")
    words = [program or "", "--bounding-set", "-dac_override,-dac_read_search"]
    if program is None or subprocess.run([*words, "true"], capture_output=True, check=False).returncode != 0:
        return None
    return words


def build_unprivileged(space: Space) -> tuple[int, str] | None:
    """Exit code and output of a build for which permissions count."""
    prefix = unprivileged()
    if prefix is None:
        return None
    words = [*prefix, sys.executable, "-m", "labmake.cli.entry", "build"]
    done = subprocess.run(words, cwd=space.root, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("folder", ["generated", f"generated/{EXPERIMENT}/assets/data"])
def test_a_folder_that_cannot_be_written_is_told_and_what_was_made_is_not_lost(space: Space, folder: str) -> None:
    space.write("script.py", OTHER)
    place = space.root / folder
    place.mkdir(parents=True)
    place.chmod(0o555)
    result = build_unprivileged(space)
    place.chmod(0o755)
    if result is not None:
        code, text = result
        assert code == 5 and "Permission denied" in text and folder in text and "  → " in text
    space.build()
    assert space.read("data/other.txt") == "other\n"
    assert space.ran == [] if result is not None else space.ran == ["data/other.txt"]


def test_a_source_that_may_not_be_read_is_told_and_the_rest_is_built(space: Space) -> None:
    space.write("./in.txt", "1").chmod(0)
    space.write("script.py", 'rule("data/a.txt", x="./in.txt", run=sh("cp {x} {out}"))\n' + OTHER)
    result = build_unprivileged(space)
    if result is not None:
        code, text = result
        assert code == 5 and "in.txt cannot be read" in text and "needed by  data/a.txt" in text and "  → " in text
        assert space.read("data/other.txt") == "other\n"


@pytest.mark.parametrize("garbage", [b"garbage" * 1000, b"", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_corrupt_state_is_rebuilt_and_nothing_runs_again(space: Space, garbage: bytes) -> None:
    space.write("script.py", OTHER + 'rule("data/b.txt", x="data/other.txt", run=sh("cat {x} > {out}"))\n')
    space.build()
    space.build()
    state = space.root / ".git/labmake"
    for file in [path for path in state.glob("state/**/*") if path.is_file()]:
        file.write_bytes(garbage)
    for _ in range(2):
        space.build()
        assert space.ran == [] and space.read("data/b.txt") == "other\n"


def test_a_state_that_cannot_be_used_is_told(space: Space) -> None:
    space.write("script.py", OTHER)
    (space.root / ".git" / "labmake").write_text("a file where a folder has to be")
    told(space, "the state file cannot be used", code=5)


# Interrupts. -------------------------------------------------------------------------------------------------------


def test_an_interrupt_finishes_what_runs_starts_nothing_more_and_loses_nothing(space: Space) -> None:
    space.write(
        "script.py",
        f'rule("data/a.txt", run=sh("touch {space.notes}; sleep 2; echo a > {{out}}"))\n'
        + 'rule("data/b.txt", x="data/a.txt", run=sh("cat {x} > {out}"))\n',
    )
    running = space.start("build")
    wait_until(space.notes.exists)
    running.interrupt()
    text = running.end(130).text
    assert "Traceback" not in text and "again to stop them now" in text
    assert space.read("data/a.txt") == "a\n" and not space.exists("data/b.txt")
    space.build()
    assert space.ran == ["data/b.txt"]


def test_a_second_interrupt_stops_what_runs_and_the_next_build_goes_on(space: Space) -> None:
    space.write("script.py", OTHER + f'rule("data/a.txt", run=sh("touch {space.notes}; sleep 600; echo > {{out}}"))\n')
    space.build("data/other.txt")
    running = space.start("build")
    wait_until(space.notes.exists)
    running.interrupt()
    wait_until(lambda: "again to stop" in running.text)
    running.interrupt()
    assert "Traceback" not in running.end(130).text
    space.write("script.py", OTHER + 'rule("data/a.txt", run=sh("echo a > {out}"))\n')
    space.build()
    assert space.ran == ["data/a.txt"]


@pytest.mark.parametrize(
    "line", ["raise KeyboardInterrupt", "@plan('data/p.txt')\ndef p():\n    raise KeyboardInterrupt"]
)
def test_an_interrupt_while_rules_are_read_or_planned_is_told_in_a_word(space: Space, line: str) -> None:
    space.write("script.py", OTHER + line + "\n")
    space.build(code=130)
    assert "interrupted" in space.last and "Traceback" not in space.last

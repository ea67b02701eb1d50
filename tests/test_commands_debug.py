"""`labmake debug`: a step runs again on the terminal, with pdb where it fails; nothing of it is recorded."""

from __future__ import annotations

import os
import shutil

import pytest
from space import Space
from terminal import Terminal

SCRIPT = """
rule("data/raw.txt", run=sh("echo 4 > {out}"))

rule("data/half.json", raw="data/raw.txt", run=py("script.py:half"))
def half(raw: str):
    number = int(raw)
    return share(number, 0)

def share(number, by):
    return number / by

@rule("data/shown.json", raw="data/raw.txt")
def shown(raw: str):
    size = len(raw)
    breakpoint()
    return {"size": size}

rule("data/plain.txt", raw="data/raw.txt", run=py("src/plain.py", limit=3))
rule("data/sorted.txt", raw="data/raw.txt", run=sh("sort {raw} > {out}; test -t 0 && echo on a terminal"))
rule("data/lost.txt", raw="data/raw.txt", run=sh("echo {raw} > elsewhere.txt"))
rule("models/{n}/", raw="data/raw.txt", run=py("script.py:train"))
def train(raw: str, n: int, out):
    for key in [1, 2]:
        if key == n:
            raise ValueError(f"no {key}")
    (out / "model").write_text("m")
"""

PLAIN = """
import sys
words = dict(word.split("=", 1) for word in sys.argv[1:])
rows = open(words["raw"]).read().split()
assert len(rows) == int(words["limit"]), "too few rows"
"""


@pytest.fixture
def written(space: Space) -> Space:
    space.write("script.py", SCRIPT)
    space.write("src/plain.py", PLAIN)
    return space


def until(terminal: Terminal, prompt: str = "(Pdb)") -> Terminal:
    terminal.until(lambda text: text.rstrip().endswith(prompt))
    return terminal


def ask(terminal: Terminal, line: str) -> str:
    """What pdb answers."""
    before = len(terminal.raw)
    terminal.type(line + "\r")
    terminal.until(lambda _: terminal.raw[before:].count(b"(Pdb)") >= 1 and terminal.raw.rstrip().endswith(b"(Pdb)"))
    return terminal.raw[before:].decode()


def test_pdb_stands_at_the_exception_with_the_values_of_the_step(written: Space) -> None:
    terminal = until(Terminal(written, "debug", "half"))
    assert "ZeroDivisionError" in terminal.text and "return number / by" in terminal.text
    assert "4" in ask(terminal, "p number")
    assert "share(number, 0)" in ask(terminal, "u") and "'4" in ask(terminal, "p raw")
    terminal.type("q\r")
    lines = terminal.end(code=1)
    assert "ended     with exit code 1" in lines
    (folder,) = (line.split()[1] for line in lines if line.startswith("folder"))
    assert (written.root / folder / "data/raw.txt").read_text() == "4\n"
    assert not written.exists("data/half.json") and "nothing failed" in written.run("failures")


def test_a_step_that_failed_in_a_build_is_debugged_and_stays_failed(written: Space) -> None:
    written.build("half", code=1)
    terminal = until(Terminal(written, "debug", "half"))
    terminal.type("q\r")
    terminal.end(code=1)
    assert "1 failed" in written.run("failures")


def test_a_breakpoint_of_a_decorated_function_works_and_the_step_goes_on(written: Space) -> None:
    written.build("shown", code=1)
    assert "labmake debug TARGET" in written.last
    terminal = until(Terminal(written, "debug", "shown"))
    assert "2" in ask(terminal, "p size")
    terminal.type("c\r")
    lines = terminal.end(code=0)
    assert "ended     well" in lines
    (folder,) = (line.split()[1] for line in lines if line.startswith("folder"))
    assert "2" in (written.root / folder / "data/shown.json").read_text()
    assert not written.exists("data/shown.json")


def test_leaving_at_a_breakpoint_shows_no_traceback(written: Space) -> None:
    terminal = until(Terminal(written, "debug", "shown"))
    terminal.type("q\r")
    assert "Traceback" not in "\n".join(terminal.end(code=1))


def test_a_script_is_debugged_too(written: Space) -> None:
    terminal = until(Terminal(written, "debug", "plain"))
    assert "too few rows" in terminal.text and "['4']" in ask(terminal, "p rows")
    terminal.type("q\r")
    terminal.end(code=1)


def test_a_folder_target_and_a_file_in_it_are_debugged(written: Space) -> None:
    terminal = until(Terminal(written, "debug", "models/2/model"))
    assert "no 2" in terminal.text and "2" in ask(terminal, "p key")
    terminal.type("q\r")
    terminal.end(code=1)
    assert "ended     well" in Terminal(written, "debug", "models/3/").end(code=0)


def test_within_a_library_pdb_stands_in_the_code_of_the_project(space: Space) -> None:
    space.write("script.py", 'rule("a.json", run=py("script.py:make"))\ndef make():\n    import json\n    text = "{"\n')
    space.write("script.py", space.read("script.py") + "    return json.loads(text)\n")
    terminal = until(Terminal(space, "debug", "a.json"))
    assert terminal.text.rstrip().splitlines()[-2].endswith("return json.loads(text)") and "'{'" in ask(
        terminal, "p text"
    )
    terminal.type("q\r")
    terminal.end(code=1)


def test_ctrl_c_stops_a_step_where_it_hangs(space: Space) -> None:
    text = (
        'rule("a.json", run=py("script.py:make"))\ndef make():\n    import time\n    n = 7\n    print("wai" + "ting")\n'
    )
    space.write("script.py", text + "    while True: time.sleep(0.01)\n")
    terminal = Terminal(space, "debug", "a.json")
    terminal.until(lambda shown: "waiting" in shown)
    terminal.type("\x03")
    until(terminal)
    assert "7" in ask(terminal, "p n")
    terminal.type("q\r")
    assert "ended     with exit code 130" in terminal.end(code=1)


def test_a_mistake_in_the_rule_is_told_without_a_debugger(space: Space) -> None:
    space.write("script.py", 'rule("a.json", run=py("script.py:make", wrong=1))\ndef make(): return {}\n')
    text = "\n".join(Terminal(space, "debug", "a.json").end(code=1))
    assert "does not take wrong" in text and "Pdb" not in text and "Traceback" not in text


def test_a_syntax_error_and_a_missing_function_are_told(space: Space) -> None:
    space.write("src/bad.py", "def f(:\n")
    space.write("script.py", 'rule("a.json", run=py("src/bad.py:f"))\nrule("b.json", run=py("script.py:none"))\n')
    assert "bad.py" in "\n".join(Terminal(space, "debug", "a.json").end(code=2))
    assert "has no function none" in "\n".join(Terminal(space, "debug", "b.json").end(code=2))


def test_a_shell_command_is_traced_and_has_the_terminal(written: Space) -> None:
    lines = Terminal(written, "debug", "sorted").end(code=0)
    assert "+ sort data/raw.txt" in lines and "on a terminal" in lines and "ended     well" in lines
    assert not written.exists("data/sorted.txt")


def test_an_output_that_is_not_written_is_told(written: Space) -> None:
    lines = Terminal(written, "debug", "lost").end(code=1)
    assert "ended     well, but it did not write data/lost.txt" in lines


def test_a_document_runs_in_the_terminal(written: Space) -> None:
    written.write("report.md", "# A report\n")
    assert "ended     well" in Terminal(written, "debug", "outputs/report.html").end(code=0)
    assert not written.exists("outputs/report.html")


@pytest.mark.skipif(not shutil.which("Rscript"), reason="R is not installed")
def test_an_r_script_runs_in_the_terminal(space: Space) -> None:
    space.write("src/fit.R", 'cat("from R\\n"); quit(status = 3)\n')
    space.write("script.py", 'rule("a.txt", run=r("src/fit.R"))\n')
    lines = Terminal(space, "debug", "a.txt").end(code=1)
    assert "from R" in lines and "ended     with exit code 3" in lines


def test_a_step_killed_by_a_signal_is_told(space: Space) -> None:
    space.write("script.py", 'rule("a.txt", run=sh("kill -SEGV $$"))\n')
    assert "ended     killed by signal 11" in Terminal(space, "debug", "a.txt").end(code=1)


def test_a_project_module_named_as_one_of_the_debuggers_own_does_no_harm(space: Space) -> None:
    space.write("src/cmd.py", "value = 3\n")
    space.write("script.py", 'rule("a.json", run=py("src/use.py:make"))\n')
    space.write("src/use.py", "def make():\n    own = 5\n    raise KeyError(own)\n")
    terminal = until(Terminal(space, "debug", "a.json", **{"PATH": os.environ["PATH"]}))
    assert "5" in ask(terminal, "p own")
    terminal.type("q\r")
    terminal.end(code=1)

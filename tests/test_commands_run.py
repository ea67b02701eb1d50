"""`labmake run`: one-off scripts with the project's modules; exit code, terminal and signals are their own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from space import Space, wait_until
from terminal import Terminal


def test_a_python_script_finds_the_projects_modules_and_its_own_folder_first(space: Space) -> None:
    space.write("src/model.py", "name = 'of the project'\n")
    space.write("/other.py", "name = 'of the root'\n")
    space.write("/tools/mine.py", "name = 'beside'\n")
    space.write(
        "/tools/look.py", "import sys, mine, model, other\nprint(mine.name, model.name, other.name, sys.argv[1:])\n"
    )
    assert space.run("run", "tools/look.py", "-e", "x", "--help", "--", "*").text == (
        "beside of the project of the root ['-e', 'x', '--help', '--', '*']\n"
    )
    assert "of the project" in space.run("run", "look.py", cwd=space.root / "tools")


def test_it_runs_in_the_working_directory_with_the_persons_variables(space: Space) -> None:
    space.write(
        "/tools/where.py", "import os; print(os.getcwd(), os.environ['MINE'], os.environ.get('LABMAKE_IN_STEP'))\n"
    )
    text = space.run("run", "../tools/where.py", cwd=space.root / "scripts", env={"MINE": "x"}).text
    assert text == f"{space.root / 'scripts'} x None\n"


@pytest.mark.parametrize("code", [0, 1, 7, 130, 255])
def test_the_exit_code_is_the_scripts(space: Space, code: int) -> None:
    space.write("/a.py", f"raise SystemExit({code})\n")
    space.run("run", "a.py", code=code)


def test_its_traceback_is_its_own(space: Space) -> None:
    space.write("/a.py", "1 / 0\n")
    text = space.run("run", "a.py", code=1).text
    assert "ZeroDivisionError" in text and "labmake" not in text


def test_a_shell_script_and_anything_with_a_first_line(space: Space) -> None:
    space.write("/a.sh", "[[ $1 == x ]] && echo bash $#\n")
    space.write("/b", "#!/bin/sh\necho sh $1\n")
    space.write("/c.awk", "#!/usr/bin/env -S awk -f\nBEGIN { print ARGV[1] }\n")
    space.write("/d.sh", "#!/usr/bin/env python3\nprint('python')\n")
    assert space.run("run", "a.sh", "x", "y").text == "bash 2\n"
    assert space.run("run", "b", "z").text == "sh z\n"
    assert space.run("run", "./c.awk", "w").text == "w\n"
    assert space.run("run", "d.sh").text == "python\n"


@pytest.mark.skipif(not shutil.which("Rscript"), reason="R is not installed")
def test_an_r_script(space: Space) -> None:
    space.write("/a.R", "cat(commandArgs(trailingOnly = TRUE)); quit(status = 5)\n")
    assert space.run("run", "a.R", "one", "two", code=5).text == "one two"


def test_it_has_the_terminal(space: Space) -> None:
    space.write("/ask.py", "print('hello', input('who? '))\n")
    terminal = Terminal(space, "run", "ask.py")
    terminal.until(lambda text: text.endswith("who?"))
    terminal.type("you\r")
    assert terminal.end()[-1] == "hello you"


def test_signals_reach_the_script(space: Space) -> None:
    space.write("/wait.py", f"import time\nopen({str(space.notes)!r}, 'a').write('on\\n')\ntime.sleep(600)\n")
    running = space.start("run", "wait.py")
    wait_until(space.noted)
    running.signal(signal.SIGTERM)
    running.end(code=-signal.SIGTERM)


def test_a_reader_that_goes_ends_it_quietly(space: Space) -> None:
    space.write("/many.sh", "while echo line; do :; done\n")
    text = f"{sys.executable} -m labmake.cli.entry run many.sh | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", text], cwd=space.root, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["line", str(128 + signal.SIGPIPE)] and not done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing.py"], "there is no script nothing.py"),
        (["scripts"], "scripts is a folder"),
        (["plain"], "does not know how to run plain"),
        (["wrong"], "is not installed"),
        (["tool.py"], "nearest  tools.py"),
        (["a\x1b[2Jb.py"], "there is no script"),
        ([], "Missing argument"),
    ],
)
def test_mistakes_are_told_in_three_parts(space: Space, words: list[str], told: str) -> None:
    space.write("/plain", "words\n")
    space.write("/tools.py", "")
    space.write("/wrong", "#!/usr/bin/env no-such-program-anywhere\n")
    text = space.run("run", *words, code=2).text
    assert text.startswith("error: ") and told in text and "Traceback" not in text and "\x1b" not in text


def test_outside_of_a_project_it_is_refused(space: Space, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.py").write_text("")
    assert "no labmake project" in space.run("run", "a.py", code=2, cwd=tmp_path / "elsewhere")

"""`labmake shell`: a person's own shell in the step folder, with what the recipe gets, and nothing becomes a result."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from space import Space, wait_until
from terminal import Terminal

SCRIPT = """
rule("data/raw.txt", run=sh("printf '3\\\\n1\\\\n2\\\\n' > {out}"))
rule("data/sorted.txt", raw="data/raw.txt", run=sh("sort {raw} > {out}"))
rule("data/sum.json", raw="data/raw.txt", run=py("script.py:total", start=5))
rule("models/{n}/", raw="data/raw.txt", run=sh("mkdir -p {out}sub; cp {raw} {out}sub/x; env > {out}env"))
group("both", "data/sorted.txt", "data/sum.json")
def total(raw, start): return {"sum": start + sum(map(int, raw.read_text().split()))}
"""

SHELLS = [name for name in ("bash", "zsh", "fish") if shutil.which(name)]


@pytest.fixture
def written(space: Space) -> Space:
    space.write("script.py", SCRIPT)
    home(space).mkdir()
    return space


def home(space: Space) -> Path:
    return space.root.parent / "home"


def shell(space: Space, *words: str, program: str = "bash", **env: str) -> Terminal:
    """A terminal with a shell that is ready."""
    home_of = {"HOME": str(home(space)), "SHELL": shutil.which(program) or program, "PATH": os.environ["PATH"]}
    terminal = Terminal(space, "shell", *words, columns=400, **{**home_of, **env})
    terminal.until(lambda text: "(step)" in text)
    return terminal


def said(terminal: Terminal, line: str, until: str) -> str:
    """Type a line and wait until something is on the screen; what is there then."""
    terminal.type(line + "\r")
    terminal.until(lambda text: until in text.replace(line, ""))
    return terminal.text


def leave(terminal: Terminal) -> list[str]:
    terminal.type("exit\r")
    return terminal.end()


def steps(space: Space) -> list[Path]:
    return list((space.root / ".git/labmake/steps").glob("*"))


@pytest.mark.parametrize("program", SHELLS)
def test_the_command_is_in_the_history_and_does_there_what_the_step_does(written: Space, program: str) -> None:
    terminal = shell(written, "sorted", program=program)
    assert "made      data/raw.txt" in terminal.text and "bash -euo pipefail -c" in terminal.text
    terminal.type("\x1b[A")  # the arrow up
    terminal.until(lambda text: text.count("sort data/raw.txt > data/sorted.txt") == 2)
    said(terminal, "; cat data/sorted.txt | tr '\\n' ,", "1,2,3,")
    leave(terminal)
    assert not steps(written) and not written.exists("data/sorted.txt") and written.exists("data/raw.txt")


@pytest.mark.parametrize("program", SHELLS)
def test_programs_get_the_variables_of_the_recipe_whatever_the_shells_own_files_say(
    written: Space, program: str
) -> None:
    places = {"bash": ".bashrc", "zsh": ".zshrc", "fish": ".config/fish/config.fish"}
    start = home(written) / places[program]
    start.parent.mkdir(parents=True, exist_ok=True)
    one = "set -gx {} {}\n" if program == "fish" else "export {}={}\n"
    start.write_text("".join(one.format(*pair) for pair in (("TZ", "Mars"), ("MINE", "1"), ("OMP_NUM_THREADS", "77"))))
    written.build("models/1/", env={"HOME": str(home(written)), "SHELL": shutil.which(program) or ""})
    recipe = dict(line.split("=", 1) for line in written.read("models/1/env").splitlines() if "=" in line)
    terminal = shell(written, "models/1/", program=program, TOKEN="unrelated")
    out = written.root.parent / "env.txt"
    said(terminal, f"env > {out}; echo do''ne", "done")
    leave(terminal)
    here = dict(line.split("=", 1) for line in out.read_text().splitlines() if "=" in line)
    own = {"PWD", "OLDPWD", "SHLVL", "_", "TERM", "TMPDIR", "GIT_CEILING_DIRECTORIES", "LABMAKE_STEP"}
    assert {k: v for k, v in here.items() if k not in own} == {k: v for k, v in recipe.items() if k not in own}
    assert here["TMPDIR"].endswith("/scratch") and here["TERM"] == "xterm"


@pytest.mark.parametrize("program", SHELLS)
def test_the_persons_own_settings_are_there_and_their_history_is_not_touched(written: Space, program: str) -> None:
    places = {"bash": ".bashrc", "zsh": ".zshrc", "fish": ".config/fish/config.fish"}
    histories = {"bash": ".bash_history", "zsh": ".zsh_history", "fish": ".local/share/fish/fish_history"}
    start, history = home(written) / places[program], home(written) / histories[program]
    for path in (start, history):
        path.parent.mkdir(parents=True, exist_ok=True)
    line = f"HISTFILE={history}\n" if program != "fish" else ""
    start.write_text(line + "alias greet='echo hel''lo'\n")
    kept = "- cmd: before\n  when: 1\n" if program == "fish" else "before\n"
    history.write_text(kept)
    terminal = shell(written, "sorted", program=program)
    said(terminal, "greet", "hello")
    leave(terminal)
    assert history.read_text() == kept


def test_a_python_step_is_run_again_and_again_by_hand(written: Space) -> None:
    terminal = shell(written, "sum")
    said(terminal, "echo $LABMAKE_STEP", "step.json")
    for _ in range(2):
        terminal.type("\x1b[A\x1b[A\r" if _ == 0 else "\x1b[A\x1b[A\x1b[A\x1b[A\r")
        assert '"sum": 11' in said(terminal, "cat data/sum.json; echo d''one", "done")
        terminal.type("clear\r")
        terminal.until(lambda text: "sum" not in text)
    leave(terminal)


def test_a_folder_that_is_kept_stays_and_says_where(written: Space) -> None:
    terminal = shell(written, "sorted", "--keep")
    terminal.type("echo mine > note; rm -f data/raw.txt\r")
    lines = leave(terminal)
    folder = written.root / lines[-1].split()[1]
    assert (folder / "note").read_text() == "mine\n" and "aside" in str(folder)
    assert written.read("data/raw.txt") == "3\n1\n2\n"
    written.build("sorted")
    assert written.read("data/sorted.txt") == "1\n2\n3\n"


def test_a_large_source_cannot_be_spoiled_from_the_shell(space: Space) -> None:
    home(space).mkdir()
    space.write("./big.txt", "line\n" * 400_000)
    space.write("script.py", 'rule("data/n.txt", big="./big.txt", run=sh("wc -l < {big} > {out}"))')
    terminal = shell(space, "n")
    said(terminal, "chmod u+w big.txt && echo spoiled >> big.txt && tail -n 1 big.txt", "spoiled")
    leave(terminal)
    assert space.read("./big.txt") == "line\n" * 400_000


def test_a_temporary_input_is_made_again_and_stays_while_one_works(space: Space) -> None:
    home(space).mkdir()
    space.write(
        "script.py",
        """
        rule("data/big.txt", temp=True, run=sh("seq 100000 > {out}"))
        rule("data/small.txt", big="data/big.txt", run=sh("wc -l < {big} > {out}"))
        """,
    )
    space.build("small")
    assert not space.exists("data/big.txt")
    terminal = shell(space, "small")
    said(terminal, "tail -n 1 data/big.txt", "100000")
    leave(terminal)
    space.build("small")
    assert space.ran == [] and space.exists("data/big.txt")
    space.build("-f", "small")
    assert not space.exists("data/big.txt")


def test_a_checkpoint_is_a_copy_and_the_next_attempt_goes_on_from_its_own(space: Space) -> None:
    home(space).mkdir()
    command = "cat $LABMAKE_CHECKPOINT/n; echo seen >> $LABMAKE_CHECKPOINT/n; exit 1"
    space.write("script.py", f'rule("data/a.txt", checkpoint=True, run=sh("{command}"))')
    space.build(code=1)
    terminal = shell(space, "a")
    said(terminal, "cat $LABMAKE_CHECKPOINT/n; rm $LABMAKE_CHECKPOINT/n", "seen")
    leave(terminal)
    assert "seen" in space.build(code=1)


def test_of_a_failed_step_it_says_what_the_attempt_left(space: Space) -> None:
    home(space).mkdir()
    space.write("script.py", 'rule("data/bad.txt", run=sh("echo half > half.txt; exit 3"))')
    space.build(code=1)
    terminal = shell(space, "bad")
    (line,) = (line for line in terminal.lines if line.startswith("failed"))
    assert "when it last ran" in line
    said(terminal, f"cat {space.root / line.split()[-1]}/half.txt; ls", "half")
    leave(terminal)
    assert space.run("failures").text.count("exit code  3") == 1


def test_what_is_needed_and_fails_is_told_as_in_a_build(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("data/a.txt", run=sh("exit 4"))
        rule("data/b.txt", a="data/a.txt", run=sh("cp {a} {out}"))
        """,
    )
    terminal = Terminal(space, "shell", "b")
    text = "\n".join(terminal.end(code=1))
    assert text.count("data/a.txt: the step failed") == 1 and "Traceback" not in text


def test_a_document_and_a_file_in_a_folder_target_have_a_step_too(written: Space) -> None:
    written.write("report.md", "# Sorted\n")
    terminal = shell(written, "outputs/report.html")
    said(terminal, "ls; echo d''one", "done")
    assert "report.md" in terminal.text
    leave(terminal)
    terminal = shell(written, "models/7/sub/x")
    assert "step folder of models/7/" in terminal.text
    leave(terminal)


def test_a_labmake_within_it_is_refused_and_ctrl_c_leaves_nothing_behind(written: Space) -> None:
    terminal = shell(written, "sorted")
    said(terminal, f"{sys.executable} -m labmake.cli.entry status", "leave the shell of `labmake shell` first")
    terminal.type("sleep 100\r")
    terminal.until(lambda text: text.rstrip().endswith("sleep 100"))
    terminal.type("\x03")
    said(terminal, "echo $?", "130")
    leave(terminal)
    assert not steps(written)


def test_when_labmake_is_told_to_end_the_shell_ends_and_the_folder_goes(written: Space) -> None:
    terminal = shell(written, "sorted")
    terminal.process.send_signal(signal.SIGTERM)
    terminal.end()
    assert not steps(written)


def test_ctrl_c_while_inputs_are_made_interrupts_as_in_a_build(space: Space) -> None:
    space.write(
        "script.py",
        f"""
        rule("data/slow.txt", run=sh("echo on >> {space.notes}; sleep 600; touch {{out}}"))
        rule("data/after.txt", slow="data/slow.txt", run=sh("cp {{slow}} {{out}}"))
        """,
    )
    terminal = Terminal(space, "shell", "after")
    wait_until(space.noted)
    terminal.type("\x03")
    terminal.until(lambda text: "again to stop them now" in text)
    terminal.type("\x03")
    assert "Traceback" not in "\n".join(terminal.end(code=130))
    assert not steps(space)


def test_what_a_killed_labmake_left_is_removed_by_the_next_build(written: Space) -> None:
    terminal = shell(written, "sorted")
    terminal.process.kill()
    terminal.close()
    assert steps(written)
    written.build("sorted")
    assert not steps(written)


def test_a_shell_that_is_not_there_is_told(written: Space) -> None:
    terminal = Terminal(written, "shell", "sorted", SHELL="/nowhere/sh")
    text = "\n".join(terminal.end(code=2))
    assert "the program cannot be started" in text and "/nowhere/sh" in text
    assert not steps(written)


def test_a_simpler_shell_gets_the_variables_too(written: Space) -> None:
    terminal = Terminal(written, "shell", "sum", SHELL="/bin/sh", HOME=str(home(written)))
    terminal.until(lambda text: "becomes a result" in text)
    said(terminal, "echo $LABMAKE_STEP", "step.json")
    leave(terminal)


MISTAKES = [
    ("nothing", "no rule makes nothing"),
    ("scripts/2026-01-02-Story/script.py", "is a source file"),
    ("data/taken.txt", "is a source: no step makes it"),
    ("both", "means several targets"),
    ("x", "means several targets"),
    ("../..", "lies outside of the project"),
]


@pytest.mark.parametrize("command", ["shell", "debug"])
@pytest.mark.parametrize(("word", "told"), MISTAKES)
def test_what_has_no_step_is_told_in_three_parts(written: Space, command: str, word: str, told: str) -> None:
    more = 'source("data/taken.txt", "scripts/x.txt")\nrule("a/x.txt", run=sh("a"))\nrule("b/x.csv", run=sh("b"))\n'
    written.write("script.py", SCRIPT + more)
    text = "\n".join(Terminal(written, command, word, columns=200).end(code=2))
    assert text.startswith("error: ") and told in text and "Traceback" not in text


@pytest.mark.parametrize("command", ["shell", "debug"])
def test_without_a_terminal_it_is_refused(written: Space, command: str) -> None:
    assert f"labmake {command} needs a terminal" in written.run(command, "sorted", code=2)
    assert not written.exists("data/raw.txt")


def test_the_step_file_tells_what_the_recipe_gets(written: Space) -> None:
    terminal = shell(written, "sum", "--keep")
    folder = written.root / leave(terminal)[-1].split()[1]
    step = json.loads((folder.parent / "step.json").read_text())
    assert step["inputs"] == {"raw": "data/raw.txt"} and step["parameters"] == {"start": 5}

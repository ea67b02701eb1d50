"""`labmake run`: a one-off script in the working directory with the project's environment; it takes this process over.

Nothing is hashed or recorded. The script finds the project's modules as a step does, and `labmake.load` gives it
results.
"""

from __future__ import annotations

import difflib
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from labmake.errors import Misuse, printable
from labmake.layout import Project, find_project

SHELLS = (".sh", ".bash")


def run_file(file: str, arguments: Sequence[str]) -> NoReturn:
    """Become the program that runs a script, so that signals, the terminal and the exit code are its own.

    Raises Misuse if there is no such file, if it is not known how to run it, and if the program is not installed.
    """
    project = find_project(Path.cwd())
    _check(file)
    command = [*_interpreter(file, project), *arguments]
    program = shutil.which(command[0])
    if program is None:
        raise Misuse(
            f"{command[0]} is not installed, or not on PATH",
            [("file", file), ("runs with", " ".join(command[:-1] if not arguments else command[: -len(arguments)]))],
            ["install it, or enter the environment that has it (nix develop, direnv, conda activate)"],
        )
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and who is ignored stays so
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(program, command, _environment(project))
    except OSError as error:
        facts = [("program", program), ("reason", error.strerror)]
        raise Misuse(f"{printable(file)} cannot be run", facts, ["correct its first line, or the program"]) from None


def _check(file: str) -> None:
    path = Path(file)
    try:
        path.open("rb").close()
        return
    except IsADirectoryError:
        raise Misuse(f"{printable(file)} is a folder", [], ["name a script in it"]) from None
    except ValueError:
        reason = "not a path"
    except OSError as error:
        reason = error.strerror or str(error)
    try:
        near = difflib.get_close_matches(path.name, os.listdir(path.parent), 3, 0.5)
    except (OSError, ValueError):
        near = []
    facts: list[tuple[str, object]] = [("file", printable(os.path.abspath(file))), ("reason", reason)]
    facts += [("nearest", printable(path.with_name(name))) for name in near]
    raise Misuse(f"there is no script {printable(file)}", facts, ["a path counts from the working directory"])


def _interpreter(file: str, project: Project) -> list[str]:
    """The command that runs a file: Python, R and Julia by suffix, else by the first line, shells by suffix."""
    suffix = Path(file).suffix.lower()
    path = file if os.sep in file else f".{os.sep}{file}"
    if suffix == ".py":
        return [sys.executable, path]
    if suffix == ".r":
        return ["Rscript", path]
    if suffix == ".jl":
        return ["julia", "--startup-file=no", f"--project={project.root}", path]
    with open(file, "rb") as script:
        first = script.readline(4096)
    if first.startswith(b"#!"):
        words = os.fsdecode(first[2:]).split(None, 1)  # the kernel's way: a program and one word
        words = [word.strip() for word in words]
        if words and os.path.basename(words[0]) == "env":
            words = shlex.split(words[1].removeprefix("-S ") if len(words) > 1 else "")
        if words:
            return [*words, path]
    if suffix in SHELLS:
        return ["bash", path]
    raise Misuse(
        f"labmake does not know how to run {printable(file)}",
        [("by suffix", ".py .R .jl .sh .bash"), ("else", "by the first line: #!/usr/bin/env program")],
        ["give it such a first line, or call its program yourself"],
    )


def _environment(project: Project) -> dict[str, str]:
    """The user's variables, with the project's src/ and root where Python looks for modules, and hashes as in steps."""
    own = [str(project.root / "src"), str(project.root)]
    path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys([*own, *path])), "PYTHONHASHSEED": "0"}

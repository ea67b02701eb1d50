"""Failures of steps as three-part errors: what happened, the command, exit code and last lines, what to do."""

from __future__ import annotations

import os
import signal
from typing import Any

from labmake.engine.rulebook import Match
from labmake.engine.services import Services
from labmake.errors import LabmakeError, StepFailed, StoreError
from labmake.layout import short
from labmake.model import Action

LAST = 12
"""Lines of the log that are shown."""

WIDE = 400
"""Characters of such a line that are shown."""


def step_error(
    services: Services, match: Match, action: Action, order: dict[str, Any], answer: dict[str, Any]
) -> LabmakeError:
    """The error of a step that ran and did not succeed."""
    name = short(match.node, match.experiment)
    facts: list[tuple[str, object]] = []
    if match.binding:
        facts.append(("wildcards", ", ".join(f"{key}={value}" for key, value in match.binding.items())))
    facts.append(("command", _command(action, order)))
    why, details = answer["why"], answer["facts"]
    what = {
        "exit": lambda: _exit(name, details["status"], facts),
        "time": lambda: f"{name}: the step exceeded its time ({order['seconds']:g} s) and was stopped",
        "output": lambda: _output(name, details, facts),
        "error": lambda: f"{name}: {answer['what']}",
        "disk": lambda: f"{name}: {answer['what']}",
        "worker": lambda: f"{name}: the worker process that ran the step died",
    }[why]()
    if why in ("error", "disk", "worker"):
        facts.extend(details.items())
    todo = list(answer.get("todo", ()))
    kept = answer.get("kept")
    if kept:
        last = _last_lines(kept + "/log")
        if last:
            facts.append(("last lines" if "\n" in last else "last line", last))
        facts.append(("log", _relative(services, kept + "/log")))
        facts.append(("folder", _relative(services, kept + "/folder")))
        if order["checkpoint"] and os.path.isdir(order["checkpoint"]) and os.listdir(order["checkpoint"]):
            facts.append(("checkpoint", _relative(services, order["checkpoint"])))
            todo.append(f"the next attempt goes on from its checkpoint; `labmake build -f {name}` begins anew")
        todo += _hints(last, details if why == "exit" else {})
        todo.append(_advice(why, name, details, bool(last)))
    kind = StoreError if why == "disk" else StepFailed
    return kind(what, facts, todo, match.rule.where)


def may_pass(answer: dict[str, Any]) -> str:
    """A failure that another attempt may not meet (`retries=`), in words; "" for one that it would: a step that ended
    well without its output, a disk that is full."""
    if answer["why"] == "exit":
        status = answer["facts"]["status"]
        return f"exit code {status}" if status >= 0 else f"killed by {_signal(-status)}"
    return {"time": "its time was over", "worker": "its worker died"}.get(answer["why"], "")


def disk_error(error: OSError) -> StoreError:
    """The error when the disk does not take or give something outside of a step."""
    return StoreError(
        f"the disk does not do what is asked: {error.strerror or error}",
        [("file", error.filename2 or error.filename)] if error.filename else [],
        ["see that the disk is not full, and that you may read and write there; what succeeded is kept"],
    )


def _exit(name: str, status: int, facts: list[tuple[str, object]]) -> str:
    if status >= 0:
        facts.append(("exit code", status))
        return f"{name}: the step failed"
    word = _signal(-status)
    facts.append(("signal", word))
    return f"{name}: the step was killed by {word}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _output(name: str, details: dict[str, Any], facts: list[tuple[str, object]]) -> str:
    facts.append(("expected", details["place"]))
    if details["there"]:
        facts.append(("found there", details["there"]))
    facts.append(("wrote", ", ".join(details["wrote"]) or "nothing"))
    return f"{name}: the step ended well and did not write {details['place']}"


def _hints(last: str, details: dict[str, Any]) -> list[str]:
    hints = []
    missing = ("No such file or directory", "FileNotFoundError", "cannot open file", "cannot open the connection")
    if details.get("status") == 127:
        hints.append("a command was not found: install it, or name a project's script by its path")
    elif any(text in last for text in missing) and "hint:" not in last:
        hints.append("a step sees only what its rule names: add the file as an input, or as code=[…]")
    if details.get("status") == -signal.SIGKILL:
        hints.append("often the machine was out of memory: give memory= so that fewer such steps run at once")
    return hints


def _advice(why: str, name: str, details: dict[str, Any], talked: bool) -> str:
    if why == "time":
        return "give the step more time (time= of its rule), or see in its log what it waited for"
    if why == "output":
        if details["place"].endswith("/"):
            return "write the files into this folder, or drop the closing / of the output"
        return "write to this very path ({out} of a command, `out` of a function), or correct the output of the rule"
    if talked:
        return f"`labmake logs {name}` shows all it printed; its folder is as the step left it"
    return "it printed nothing; its folder is as the step left it"


def _command(action: Action, order: dict[str, Any]) -> str:
    recipe = action.recipe
    if recipe.kind == "sh":
        return str(order["command"][-1]).replace("\0scratch", "$TMPDIR")
    if recipe.kind == "function":
        return f"{recipe.text}:{recipe.function}"
    return " ".join([recipe.interpreter, recipe.text]).strip()


def _last_lines(path: str) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16384))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.rstrip("\r") for line in text.rstrip().split("\n")[-LAST:]]
    return "\n".join(line if len(line) <= WIDE else line[:WIDE] + " …" for line in lines)


def _relative(services: Services, path: str) -> str:
    relative = os.path.relpath(path, services.project.root)
    return path if relative.startswith("../..") else relative

"""Events: a build told to programs, one JSON object a line on stdout. docs/command-line.md says what each holds."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from labmake.errors import LabmakeError
from labmake.layout import short

VERSION = 1
"""Of the events; raised when a field goes or means something else, not when one is added."""


class Events:
    """Tells a build on `out` (stdout)."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.experiment = ""
        self.expected: Callable[[str], float | None] = lambda node: None

    def tell(self, event: str, **fields: Any) -> None:
        """Write one event; when nobody reads any more, the build goes on in silence."""
        line = json.dumps({"event": event, "time": round(time.time(), 3), **fields}) + "\n"
        try:
            self.out.write(line)
            self.out.flush()
        except (OSError, ValueError):
            self.out = open(os.devnull, "w")  # noqa: SIM115 - it lives as long as the process

    def target(self, event: str, node: str, **fields: Any) -> None:
        """An event about a target: its project path, and its name as the experiment's author writes it."""
        self.tell(event, target=node, name=short(node, self.experiment), **fields)

    # What a build reports ----------------------------------------------------------------------------------------

    def planned(self, waiting: int, running: int) -> None:
        """Not told: it changes with every step, and follows from the events of steps."""

    def started(self, node: str, why: str) -> None:
        self.target("step-started", node, why=why, expected=rounded(self.expected(node)))

    def finished(self, node: str, seconds: float, notes: list[str], peak: int = 0) -> None:
        self.target("step-finished", node, seconds=rounded(seconds), peak=peak, notes=notes)

    def restored(self, node: str) -> None:
        self.target("restored", node)

    def failed(self, node: str, error: LabmakeError) -> None:
        self.target("failed", node, **parts(error))

    def note(self, text: str) -> None:
        self.tell("note", text=text)

    def end(self) -> None:
        """Nothing is left to write."""

    # What the command adds ---------------------------------------------------------------------------------------

    def summary(self, counts: Mapping[str, int], seconds: float, code: int) -> None:
        """The last event of every build."""
        self.tell("summary", **counts, seconds=rounded(seconds), exit=code)


def parts(error: LabmakeError) -> dict[str, Any]:
    """The parts of an error: what, facts as [label, text] pairs, todo, where, and its exit code."""
    where = {"file": error.where.file, "line": error.where.line} if error.where is not None else None
    facts = [[label, str(value)] for label, value in error.facts]
    return {"what": error.what, "facts": facts, "todo": error.todo, "where": where, "code": error.code}


def rounded(seconds: float | None) -> float | None:
    """Seconds to the millisecond, as all events have them."""
    return None if seconds is None else round(seconds, 3)

"""`labmake.load`: a target is built and handed over as a value, to a REPL, a notebook or a one-off script.

The build is a process of its own, told by its events. In this one it would import the project's modules, fork whatever
memory and threads a notebook has, take its signals, and iterate over sets in another order than the command line does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labmake.errors import (
    DataChanged,
    Edited,
    LabmakeError,
    Misuse,
    RuleError,
    StepFailed,
    StoreError,
    Where,
    printable,
)

if TYPE_CHECKING:
    import subprocess

# The rest is imported when it is needed: script.py may name `load`, and each of its steps would pay 60 ms.

Event = dict[str, Any]

_KINDS: dict[int, type[LabmakeError]] = {
    kind.code: kind for kind in (StepFailed, Misuse, Edited, DataChanged, StoreError)
}


def load(target: str | os.PathLike[str], kind: object = None, *, experiment: str | None = None) -> Any:
    """Build a target if need be, and load it: `labmake.load("data/results.csv")`.

    `target` is written as on the command line, from the working directory or as a short path of the current experiment;
    `experiment` names another one, as -e does. `kind` says as what it is loaded, as the annotation of an input does
    (`polars.DataFrame`, `dict`, `bytes`, `pathlib.Path` for the path alone); without it by the suffix: tables as
    pandas.DataFrame, JSON and pickles as what they hold, arrays, texts; figures and folders as their Path.

    Progress goes to the standard error, a line each. Raises LabmakeError if the target cannot be built or loaded,
    KeyboardInterrupt after Ctrl-C, which stops the build as it does on the command line.
    """
    from labmake.formats import load as load_as
    from labmake.formats import load_by_suffix

    word = os.fspath(target)
    _check_place(word)
    path = _built(word, experiment)
    if isinstance(kind, type) and issubclass(kind, Path):
        return path
    return load_by_suffix(path) if kind is None else load_as(path, kind)


def _check_place(word: str) -> None:
    """Raises Misuse where there is nothing to build: in a step, and while rules are read."""
    # What is not imported yet reads no rules.
    api, planning = sys.modules.get("labmake.api"), sys.modules.get("labmake.engine.plan")
    shown = [("target", printable(word)[:200])]
    if os.environ.get("LABMAKE_IN_STEP"):
        raise Misuse(
            "labmake.load was called in a step",
            shown,
            ["name the target as an input of the rule: the step gets it by that name, loaded as annotated"],
        )
    if (api is not None and api.loading is not None) or (planning is not None and planning.in_plan()):
        raise Misuse(
            "labmake.load was called while rules are read",
            shown,
            [
                "in a @plan function use read_json, read_csv or read_text, which build what they read",
                "in a step name it as an input of the rule",
            ],
        )


def _built(word: str, experiment: str | None) -> Path:
    """The path of a target that is up to date."""
    from labmake.layout import find_project

    words = ["build", "--json", *(["-e", experiment] if experiment is not None else []), "--", word]
    targets: list[str] = []
    failures: list[Event] = []
    last: Event = {}
    said: list[str] = []
    for event in _events([sys.executable, "-P", "-m", "labmake.cli.entry", *words], said):
        last = event
        if event["event"] == "build-started":
            targets = event["targets"]
        elif event["event"] == "failed":
            failures.append(event)
        else:
            for line in _lines(event):
                sys.stderr.write(line + "\n")
    if last.get("interrupted"):
        raise KeyboardInterrupt
    if failures:
        raise _error(failures)
    if last.get("event") != "summary" or last["exit"] != 0:
        facts = [("it said", "".join(said[-12:]).strip() or "nothing")]
        raise StoreError("the build ended before it was done", facts, [f"see what `labmake build {word}` says"])
    if len(targets) != 1:
        raise Misuse(
            f"{printable(word)} means several targets", [("targets", "\n".join(targets))], ["load one of them"]
        )
    return find_project(Path(os.path.realpath(os.getcwd()))).root / targets[0]


def _events(command: list[str], said: list[str]) -> Iterator[Event]:
    """The events of a build as they come; what else it says is added to `said` and, unless an error, written on."""
    import json
    import selectors
    import subprocess

    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONHASHSEED": "0"},  # else it would start itself again with it
        start_new_session=True,  # Ctrl-C in a terminal would reach it as well as us
    )
    assert process.stdout is not None and process.stderr is not None
    rest = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
    try:
        with _interrupts_to(process), selectors.DefaultSelector() as selector:
            for descriptor in rest:
                selector.register(descriptor, selectors.EVENT_READ)
            while selector.get_map():
                for descriptor in [key.fd for key, _ in selector.select()]:
                    data = os.read(descriptor, 1 << 16)
                    if not data:
                        selector.unregister(descriptor)
                    *lines, rest[descriptor] = (rest[descriptor] + data).split(b"\n")
                    for line in lines:
                        if descriptor == process.stdout.fileno():
                            yield json.loads(line)
                        else:
                            _hear(line.decode(errors="replace"), said)
        process.wait()
    finally:
        if process.poll() is None:  # who reads the events has gone
            process.terminate()
            process.wait()
        process.stdout.close()
        process.stderr.close()


@contextmanager
def _interrupts_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """While it is entered, Ctrl-C is a build's: the first lets what runs be finished, the second stops it.

    Not in a thread: there nobody but the main thread hears of Ctrl-C.
    """
    import signal

    try:
        before = signal.signal(signal.SIGINT, lambda *_: process.send_signal(signal.SIGINT))
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _hear(line: str, said: list[str]) -> None:
    said.append(line + "\n")
    if not any(one.startswith("error: ") for one in said):
        sys.stderr.write(line + "\n")


def _lines(event: Event) -> Iterator[str]:
    """What the command line tells of an event."""
    from labmake.cli.units import in_units

    kind = event["event"]
    name = printable(event.get("name", ""))
    if kind == "step-finished":
        yield f"made      {name}  {in_units(event['seconds'])}"
        if event["notes"]:
            notes = printable(", ".join(event["notes"][:4]))
            yield f"          it also wrote {notes}: no outputs, so they were dropped"
    elif kind == "restored":
        yield f"restored  {name}"
    elif kind == "note":
        yield printable(event["text"])
    elif kind == "price":
        from labmake.cli.asking import in_words
        from labmake.engine.price import Price

        fields = (event["steps"], event["depending"], event["expected"], event["untimed"], event["because"])
        yield printable(in_words(Price(*fields)))


def _error(failures: list[Event]) -> LabmakeError:
    """The first failure of a build as the error that it was, with a word about others."""
    first, *others = failures
    where = first["where"] and Where(first["where"]["file"], first["where"]["line"])
    kind = RuleError if first["code"] == RuleError.code and where else _KINDS.get(first["code"], LabmakeError)
    error = kind(first["what"], [(label, text) for label, text in first["facts"]], first["todo"], where or None)
    if others:
        names = ", ".join(other["name"] or other["what"] for other in others[:8])
        error.facts.append(("failed too", names + (f" and {len(others) - 8} more" if len(others) > 8 else "")))
    return error

"""Plans: cheap, repeatable Python that may look at other targets. A read that is not ready suspends the plan.

When what it asked for is ready, the plan runs again from the top and must ask the same questions in the same order
(suspend by replay). Reads raise Suspend, a BaseException, so that a user's `except Exception` does not swallow it.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from labmake import formats
from labmake.engine.broken import broken
from labmake.engine.found import Found
from labmake.engine.watch import Watched, unwatched
from labmake.errors import LabmakeError, RuleError, Where
from labmake.frozen import frozen
from labmake.layout import expand, short
from labmake.model import Key, Step


class _Raise:
    def __repr__(self) -> str:
        return "raise"


RAISE = _Raise()
"""The default of `failed=`: a read of a target that failed fails the plan."""


@frozen
class Answer:
    """What is known of a key: its digest, and the bytes themselves where they are small and at hand.

    `origin` is the path of a file of the worktree that the store need not hold.
    """

    digest: str
    data: bytes | None = None
    origin: str = ""


@frozen
class Failed:
    """A key that cannot be answered; `error` is the cause, `root` the key where it happened."""

    error: LabmakeError
    root: str


@frozen
class Unknown:
    """A key whose answer is known only after something has run (`build -n`); `after` says what."""

    after: str


Result = Answer | Failed | Unknown
Asking = Generator[Sequence[Key], Sequence[Result], Any]
Paths = str | PurePath | Sequence[str | PurePath]


class Suspend(BaseException):
    """A plan asked for keys that are not answered yet."""

    def __init__(self, keys: Sequence[Key]) -> None:
        super().__init__(keys)
        self.keys = tuple(keys)


class ReadFailed(BaseException):
    """A plan read a target that failed. A BaseException, so that it ends the plan like a Suspend."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.error.what)
        self.failed = failed


class AfterRun(BaseException):
    """A plan read a target that is known only after something has run (`build -n`)."""

    def __init__(self, unknown: Unknown) -> None:
        super().__init__(unknown.after)
        self.unknown = unknown


@dataclass
class Context:
    """One replay: the questions of the replays before with their answers, and how far this one has come."""

    experiment: str
    content: Callable[[Key, Answer], bytes]
    ready: Callable[[Key], Result | None]
    groups: list[tuple[tuple[Key, ...], tuple[Result, ...]]] = field(default_factory=list)
    position: int = 0
    suspended: Suspend | None = None
    """The suspension of this replay: kept, since a bare `except:` of the plan may swallow it."""

    def ask(self, keys: Sequence[Key]) -> tuple[Result, ...]:
        asked = tuple(keys)
        if self.position < len(self.groups):
            before, answers = self.groups[self.position]
            if before != asked:
                raise _not_repeatable(before, asked, self.experiment)
        elif self.suspended is not None:
            raise self.suspended
        else:
            known = [self.ready(key) for key in asked]
            if any(answer is None for answer in known):
                self.suspended = Suspend(asked)
                raise self.suspended
            answers = tuple(answer for answer in known if answer is not None)
            self.groups.append((asked, answers))
        self.position += 1
        return answers


current: Context | None = None
"""The replay that is running, if any: plans run one at a time, in one thread."""


def in_plan() -> bool:
    """Whether a plan is running."""
    return current is not None


def replay(function: Callable[..., Any], arguments: Mapping[str, str], where: Where, context: Context) -> Asking:
    """Run a plan until it is decided; yields the keys it waits for, returns (Step, groups of keys and answers).

    Raises RuleError if it is not repeatable, fails, or does not return a step.
    """
    global current
    while True:
        context.position, context.suspended = 0, None
        current, previous = context, current
        try:
            decided = _run(function, arguments, where, context)
        except Suspend as suspended:
            current = previous
            answers = yield suspended.keys
            context.groups.append((suspended.keys, tuple(answers)))
            continue
        except LabmakeError as error:
            error.where = error.where or where
            raise
        except (Exception, SystemExit) as error:
            raise broken(error, f"the plan {function.__name__} failed", where) from None
        finally:
            current = previous
        if context.position != len(context.groups):
            raise _not_repeatable(context.groups[context.position][0], (), context.experiment)
        if not isinstance(decided, Step):
            raise RuleError(
                f"the plan {function.__name__} returned no step",
                [("returned", repr(decided)[:200])],
                ["end it with `return step(run=…, name=input, …)`"],
                where,
            )
        return decided, context.groups


def _run(function: Callable[..., Any], arguments: Mapping[str, str], where: Where, context: Context) -> Any:
    """What the plan returns, watched. A suspension or a refused read counts even if the plan caught it."""
    named = _named(function, arguments)
    try:
        with Watched(where) as watched:
            decided = function(**named)
    except Exception:
        if context.suspended is not None:
            raise context.suspended from None
        raise
    if context.suspended is not None:
        raise context.suspended
    if watched.refused is not None:
        raise watched.refused
    return decided


def _named(function: Callable[..., Any], arguments: Mapping[str, str]) -> dict[str, str]:
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(arguments)
    missing = [
        n
        for n, p in parameters.items()
        if n not in arguments and p.default is p.empty and p.kind is not p.VAR_POSITIONAL
    ]
    if missing:
        raise RuleError(
            f"the plan {function.__name__} asks for {missing[0]}, which is no wildcard of its pattern",
            [("wildcards", ", ".join(arguments) or "none")],
            [f"write `def {function.__name__}({', '.join(arguments)})`, or add {{{missing[0]}}} to the pattern"],
        )
    return {name: value for name, value in arguments.items() if name in parameters}


def _not_repeatable(before: Sequence[Key], now: Sequence[Key], experiment: str) -> RuleError:
    first, then = (", ".join(_shown(key, experiment) for key in keys[:5]) for keys in (before, now))
    return RuleError(
        "a plan is not repeatable: run again, it asked something else",
        [("first", first or "nothing"), ("then", then or "nothing more")],
        ["a plan may depend on its wildcards and on what it reads only: no time, no random numbers, no order of a set"],
    )


def _shown(key: Key, experiment: str) -> str:
    return key if key.startswith("?") else short(key, experiment)


# What a plan may call. ---------------------------------------------------------------------------------------------


def _context(name: str) -> Context:
    if current is None:
        raise RuleError(
            f"{name}() is called outside of a plan",
            [],
            ["while a rule file is loaded nothing is made yet: call it in a function with @plan, or name an input"],
        )
    return current


def _several(path: Paths) -> tuple[list[str], bool]:
    """One path or several as a list of texts, and whether it was several."""
    if isinstance(path, (str, PurePath)):
        return [str(path)], False
    return [str(one) for one in path], True


def _read(name: str, path: Paths, failed: object, parse: Callable[[bytes, str], Any]) -> Any:
    context = _context(name)
    paths, many = _several(path)
    answers = context.ask([expand(p, context.experiment) for p in paths])
    values = [_value(context, p, answer, failed, parse) for p, answer in zip(paths, answers, strict=True)]
    return values if many else values[0]


def _value(context: Context, path: str, answer: Result, failed: object, parse: Callable[[bytes, str], Any]) -> Any:
    if isinstance(answer, Failed):
        if failed is RAISE:
            raise ReadFailed(answer)
        return failed
    if isinstance(answer, Unknown):
        raise AfterRun(answer)
    return parse(_content(context, expand(path, context.experiment), answer), path)


def _content(context: Context, key: Key, answer: Answer) -> bytes:
    """The bytes behind an answer; labmake itself may open files while a plan is watched."""
    with unwatched():
        return context.content(key, answer)


def read_json(path: Paths, failed: object = RAISE) -> Any:
    """The parsed content of a JSON target (or of several, made in parallel); `failed=` is the value if one failed."""
    return _read("read_json", path, failed, formats.read_json)


def read_csv(path: Paths, failed: object = RAISE) -> Any:
    """The rows of a CSV target as dicts of texts (of several targets: a list of such lists)."""
    return _read("read_csv", path, failed, formats.read_csv)


def read_text(path: Paths, failed: object = RAISE) -> Any:
    """The text of a target (UTF-8), or of several."""
    return _read("read_text", path, failed, _text)


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RuleError(f"{name} is no UTF-8 text", [("byte", error.start)]) from None


def need(path: Paths, failed: object = RAISE) -> Any:
    """Have targets made without reading them; returns their short paths, with `failed` in place of one that failed."""
    context = _context("need")
    paths, many = _several(path)
    kept: list[Any] = []
    for one, answer in zip(paths, context.ask([expand(p, context.experiment) for p in paths]), strict=True):
        if isinstance(answer, Unknown):
            raise AfterRun(answer)
        if isinstance(answer, Failed) and failed is RAISE:
            raise ReadFailed(answer)
        kept.append(failed if isinstance(answer, Failed) else Found(one))
    return kept if many else kept[0]


def listdir(path: Paths) -> Any:
    """The names in a folder (of a folder target, or of the worktree), sorted; of several: a list of such lists."""
    context = _context("listdir")
    paths, many = _several(path)
    keys = [f"?list {expand(p.rstrip('/') + '/', context.experiment)}" for p in paths]
    listings = [_listing(context, key, answer) for key, answer in zip(keys, context.ask(keys), strict=True)]
    return listings if many else listings[0]


def find(pattern: str) -> dict[Any, Found]:
    """See labmake.find: in a plan it is answered at once."""
    context = _context("find")
    key = f"?find {expand(pattern, context.experiment)}"
    found = _listing(context, key, context.ask([key])[0])
    return {
        (values[0] if len(values) == 1 else tuple(values)): Found(short(path, context.experiment))
        for values, path in found
    }


def glob(pattern: str) -> list[Found]:
    """See labmake.glob: in a plan it is answered at once."""
    context = _context("glob")
    key = f"?glob {expand(pattern, context.experiment)}"
    return [Found(short(path, context.experiment)) for path in _listing(context, key, context.ask([key])[0])]


def env(name: str, default: str = "") -> str:
    """The value of an environment variable; the plan is decided again when it changes."""
    context = _context("env")
    key = f"?env {name}"
    value = _listing(context, key, context.ask([key])[0])
    return default if value is None else str(value)


def _listing(context: Context, key: Key, answer: Result) -> Any:
    if isinstance(answer, Failed):
        raise ReadFailed(answer)
    if isinstance(answer, Unknown):
        raise AfterRun(answer)
    return json.loads(_content(context, key, answer))


# Options of rules and steps, as numbers. ---------------------------------------------------------------------------

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SECONDS = {"s": 1, "": 1, "m": 60, "h": 3600, "d": 86400}


def amount(value: object) -> int:
    """Bytes of an amount such as 2G, 500M or 1.5G. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", str(value).strip(), re.IGNORECASE)
    if found is None or isinstance(value, bool):
        raise ValueError(value)
    return int(float(found[1]) * _UNITS[found[2].upper()])


def duration(value: object) -> float:
    """Seconds of a duration such as 90s, 30m, 1h30m, 2d. Raises ValueError."""
    text = str(value).strip().lower()
    pieces = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text)
    if isinstance(value, bool) or not pieces or not re.fullmatch(r"(?:\d+(?:\.\d+)?\s*[smhd]?\s*)+", text):
        raise ValueError(value)
    return sum(float(number) * _SECONDS[unit] for number, unit in pieces)


def _are_files(value: object) -> bool:
    named = isinstance(value, (list, tuple)) and all(isinstance(item, str) and item.strip() for item in value)
    return named and bool(value)


def _is_comparison(value: object) -> bool:
    from labmake.engine.compare import parse_comparison  # of use to few rules

    return bool(parse_comparison(value))


def check_option(name: str, value: object) -> None:
    """Raises ValueError unless `value` is what the reserved word `name` takes."""
    texts = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    good: dict[str, Callable[[], bool]] = {
        "memory": lambda: amount(value) > 0,
        "time": lambda: duration(value) > 0,
        "cpus": lambda: isinstance(value, int) and not isinstance(value, bool) and value > 0,
        "gpus": lambda: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
        "batch": lambda: isinstance(value, int) and not isinstance(value, bool) and value > 0,
        "retries": lambda: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
        "code": lambda: texts,
        "secrets": lambda: texts,
        "environment": lambda: value in ("all", "none") or _are_files(value),
        "wrap": lambda: isinstance(value, str) and bool(value),
        "checkpoint": lambda: isinstance(value, bool),
        "cache": lambda: isinstance(value, bool),
        "temp": lambda: isinstance(value, bool),
        "compare": lambda: _is_comparison(value),
        "default": lambda: isinstance(value, bool),
        "description": lambda: isinstance(value, str),
    }
    if not good[name]():
        raise ValueError(value)

"""Why two runs of a step differ: the causes in words with advice, and the traces by which they are known in a text.

A table of what a time, a path or an address looks like when it is written. A cause is named where what differs is gone
once all that looks so is taken out of both texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from labmake.engine.compare import NUMBER, numbers
from labmake.frozen import frozen

TIME = "time stamp"
FOLDER = "absolute path"
SET = "order of a set"
UMASK = "umask"
THREADS = "threads"
LISTING = "order of a listing"
RANDOM = "random numbers"
ADDRESS = "memory address"
ROUNDING = "rounding"
ORDER = "order"
UNSTEADY = "time, random numbers or threads"
UNDECLARED = "undeclared input"

ADVICE = {
    TIME: "leave the time out, or take it from SOURCE_DATE_EPOCH, which is the same in every run",
    FOLDER: "write paths relative to the step folder, as the rule has them, and no names of temporary files",
    SET: "sort what comes out of a set or from hash() before it is written",
    UMASK: "set the mode of what you write or pack, instead of leaving it to the umask",
    THREADS: 'compute with one thread (cpus=1), or say how exact the result is: compare="numbers 1e-9"',
    LISTING: "sort what you list: sorted(os.listdir(…)), sort after find",
    RANDOM: "seed the generator from a parameter or from LABMAKE_SEED, which is the step's own",
    ADDRESS: "write what an object holds instead of its repr, which tells where it lies",
    ROUNDING: 'sum in a fixed order with one thread, or say how exact the result is: compare="numbers 1e-9"',
    ORDER: "sort before you write: a set, a folder's listing and parallel work come in any order",
    UNDECLARED: "what it reads outside of its folder changed: make it a source(…) or an input of the rule",
    UNSTEADY: "seed what is random, leave out the time, and compute with one thread",
}
"""What to do, by cause."""


@frozen
class Surroundings:
    """What a run's own traces look like: the folder `steps` below which it ran, and the seconds since 1970 between
    which it did."""

    steps: str
    after: float
    before: float


@frozen
class Told:
    """The causes that two texts show; `whole` if nothing differs once these are taken out."""

    causes: tuple[str, ...]
    whole: bool


_CLOCK = r"\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?(?: ?[AP]M)?(?:Z|[+-]\d\d:?\d\d)?"
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DATES = re.compile(
    rf"(?:D:)?\b(?:19|20)\d{{12}}\b(?:[+-]\d\d'\d\d'?|Z)?"  # PDF, and compact
    rf"|\b(?:19|20)\d\d[-/.]\d\d[-/.]\d\d(?:[T _-]{_CLOCK})?"
    rf"|\b(?:19|20)\d{{6}}[T_-]\d{{4,6}}\b"
    rf"|\b(?:{_MONTHS})[a-z]* +\d{{1,2}},? (?:{_CLOCK} )?(?:[A-Z]{{3,4}} )?\d{{4}}\b"
    rf"|\b\d{{1,2}} (?:{_MONTHS})[a-z]* \d{{4}}(?: {_CLOCK})?"
    rf"|\b{_CLOCK}"
)
_SECONDS = re.compile(r"(?<![\w.])[12]\d{9}(?:\.\d+|\d{3}|\d{9})?(?![\w.])")
_LASTED = re.compile(
    r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)? ?(?:s|sec|secs|seconds|ms|msec|milliseconds|µs|us|ns|min|minutes)\b"
)
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,16}\b")
_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE)
_TEMPORARY = re.compile(r"\btmp[a-z0-9_]{8}\b|\btmp\.[A-Za-z0-9]{10}\b|\bRtmp[A-Za-z0-9]{6}\b")
_MODE = re.compile(r"(?<!\S)[-dlpsc](?:[r-][w-][-xsStT]){3}")
_HEX = re.compile(r"\b[0-9a-f]{16,}\b")


@frozen
class _Trace:
    """What a cause looks like in a text; `counts` says whether a match is one."""

    cause: str
    looks: re.Pattern[str]
    counts: Callable[[str], bool] = bool

    def in_text(self, text: str) -> list[str]:
        return [found[0] for found in self.looks.finditer(text) if self.counts(found[0])]

    def taken_out(self, text: str) -> str:
        return self.looks.sub(lambda found: f"({self.cause})" if self.counts(found[0]) else found[0], text)


def _traces(around: Surroundings) -> Sequence[_Trace]:
    """The traces that are looked for, in this order: a path may hold a date, and an identifier what looks like one."""

    def is_now(found: str) -> bool:
        digits = found.partition(".")[0]
        seconds = float(digits) / 10.0 ** (len(digits) - 10)
        return around.after - 60 <= seconds <= around.before + 60

    return (
        _Trace(FOLDER, re.compile(re.escape(around.steps) + r"[^\s\"'<>,;:()\[\]{}]*")),
        _Trace(RANDOM, _UUID),
        _Trace(FOLDER, _TEMPORARY),
        _Trace(ADDRESS, _ADDRESS),
        _Trace(TIME, _DATES),
        _Trace(TIME, _SECONDS, is_now),
        _Trace(TIME, _LASTED),
        _Trace(UMASK, _MODE),
    )


def told_by(one: Sequence[str], other: Sequence[str], around: Surroundings) -> Told:
    """The causes that lines show in which two texts differ."""
    if sorted(one) == sorted(other):
        return Told((ORDER,), True)
    before, after = "\n".join(one), "\n".join(other)
    causes: list[str] = []
    for trace in _traces(around):
        if trace.in_text(before) != trace.in_text(after):
            causes.append(trace.cause)
        before, after = trace.taken_out(before), trace.taken_out(after)
        if before == after:
            return _told(causes, True)
    if sorted(_words(before)) == sorted(_words(after)):
        return _told([*causes, ORDER], True)
    if NUMBER.sub("#", before) == NUMBER.sub("#", after):
        return _told([*causes, ROUNDING if _are_close(numbers(before), numbers(after)) else RANDOM], False)
    if _HEX.sub("#", before) == _HEX.sub("#", after):
        causes.append(RANDOM)
    return _told(causes, False)


def _told(causes: Iterable[str], whole: bool) -> Told:
    return Told(tuple(dict.fromkeys(causes)), whole)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\s,;:()\[\]{}\"']+", text)


def _are_close(one: Iterable[float], other: Iterable[float]) -> bool:
    return all(
        a == b or (math.isclose(a, b, rel_tol=1e-6) and not (a.is_integer() and b.is_integer()))
        for a, b in zip(one, other, strict=True)
    )


def day(seconds: float) -> str:
    """A moment as it is shown: to the second, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

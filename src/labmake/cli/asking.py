"""Asking before long work: its price is told before the first step runs, and on a terminal the user decides."""

from __future__ import annotations

import math
import signal
import sys

import click

from labmake.cli.events import Events
from labmake.cli.progress import Progress
from labmake.cli.units import about
from labmake.engine.build import Build
from labmake.engine.plan import duration
from labmake.engine.price import Price, price
from labmake.engine.times import Times
from labmake.errors import Misuse, printable


def budget_seconds(written: str) -> float:
    """The seconds of a budget such as 30m or 2h. Raises Misuse."""
    try:
        return duration(written)
    except ValueError:
        raise Misuse(
            f"the budget is no time: {printable(written)[:80]}",
            [("option", "--budget, or the variable LABMAKE_BUDGET")],
            ["write a time such as 90s, 30m, 1h30m or 2d"],
        ) from None


class Asking:
    """Tells the price of a build above `budget` (seconds) once, before its first step or as soon as it is known, and
    asks whether to go on. Without a terminal to answer on, or with `yes`, it is only told.
    """

    def __init__(self, build: Build, times: Times, told: Progress | Events, budget: float, yes: bool) -> None:
        self._build, self._times, self._told = build, times, told
        self._budget, self._yes = budget, yes
        self._work = math.inf  # the first steps are always priced, with all that depends on them
        self._done = build.is_first  # then no time is known

    @property
    def settled(self) -> bool:
        """Whether there is nothing to ask about any more: it was asked, or no time is known."""
        return self._done

    def __call__(self, nodes: list[str]) -> bool:
        """Whether to go on with `nodes`, which are now to run. New work is priced when it adds up to the budget."""
        if self._done:
            return True
        jobs = self._build.options.jobs
        self._work += sum(self._times.expected(node) or 0.0 for node in nodes) / jobs
        if self._work <= self._budget:
            return True
        self._work = 0.0
        found = price(self._build.services, self._build, self._times, self._budget)
        if found is None:
            return True
        self._done = True
        if isinstance(self._told, Events):
            fields = {"steps": found.steps, "depending": found.more, "untimed": found.untimed}
            self._told.tell("price", expected=round(found.seconds, 3), because=found.because, **fields)
            return True
        self._told.note(in_words(found))
        if self._yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return True
        self._told.end()
        return _confirmed()


def _confirmed() -> bool:
    during_build = signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C is an answer, too: no
    try:
        return click.confirm("Go on?", err=True)
    except click.Abort:
        click.echo(err=True)
        return False
    finally:
        signal.signal(signal.SIGINT, during_build)


def in_words(price: Price) -> str:
    """`40 steps, about 61 h, because src/train.py:88 changed`; more than that, if some were never timed."""
    steps = f"{price.steps} step{'s' * (price.steps != 1)}"
    more = f" and up to {price.more} that depend on them" if price.more else ""
    never = f" ({price.untimed} {'was' if price.untimed == 1 else 'were'} never timed)" if price.untimed else ""
    because = f", because {price.because}" if price.because else ""
    return f"{steps}{more}, {'more than' if never else 'about'} {about(price.seconds)}{never}{because}"

"""Progress: what runs and since when, what is left, what was cached - live on a terminal, plain lines elsewhere.

The build's thread only notes what happens; on a terminal a second thread draws it ten times a second, since a build
waits minutes for a step. Elsewhere each line is written when it happens.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TextIO

from labmake.cli.screen import clip, drawing, is_screen, size, width
from labmake.cli.units import about, in_units, in_whole_units
from labmake.engine.times import Rest
from labmake.errors import LabmakeError, format_error, printable
from labmake.layout import short

FRAME = 0.1
"""Seconds between two drawings."""

CALM = 0.5
"""Seconds before the region is drawn first, and after which a burst of restored targets is over."""

SINGLY = 5
"""Targets of one frame, or of one burst, that are told line by line on a terminal; more are summed up."""

SHOWN = 8
"""Running steps that are shown at once."""

Foresee = Callable[[Mapping[str, float]], tuple[int, Rest]]


class Progress:
    """Tells a build on `out` (stderr). Targets are called as the experiment's author writes them."""

    def __init__(self, out: TextIO | None = None, quiet: bool = False) -> None:
        self.out: TextIO | None = out or sys.stderr
        self.experiment = ""
        self.quiet = quiet
        self.live = not quiet and is_screen(self.out)
        self.made = self.taken = self.broken = 0
        self.expected: Callable[[str], float | None] = lambda node: None
        self.foresee: Foresee | None = None
        self.learn: Callable[[str, float], None] = lambda node, seconds: None
        self._said: deque[tuple[str, str, str]] = deque()
        self._running: dict[str, tuple[float, float | None]] = {}
        self._left = 0
        self._rest: Rest | None = None
        self._foreseen_at = 0.0
        self._writing = False
        self._screen: _Screen | None = None

    def name(self, node: str) -> str:
        """A node as it is shown."""
        return printable(short(node, self.experiment)).replace("\n", "\\n")

    # What a build reports ----------------------------------------------------------------------------------------

    def planned(self, waiting: int, running: int) -> None:
        now = time.monotonic()
        if self.live and now - self._foreseen_at > 1.0:
            self._foreseen_at = now
            self._left = waiting + running
            if self.foresee is not None:
                self._left, self._rest = self.foresee({n: now - since for n, (since, _) in self._running.items()})
            if running:
                self._draw_from_now_on()

    def started(self, node: str, why: str) -> None:
        if self.live:
            self._running[node] = time.monotonic(), self.expected(node)
            self._draw_from_now_on()

    def finished(self, node: str, seconds: float, notes: list[str], peak: int = 0) -> None:
        self._running.pop(node, None)
        self.made += 1
        if self.live:
            self.learn(node, seconds)
        more = ""
        if notes:
            shown = ", ".join(notes[:4]) + (f" and {len(notes) - 4} more" if len(notes) > 4 else "")
            more = f"\n          it also wrote {printable(shown)}: no outputs, so they were dropped"
        self._say("made", node, f"  {in_units(seconds)}{more}")

    def restored(self, node: str) -> None:
        self.taken += 1
        self._say("restored", node)

    def failed(self, node: str, error: LabmakeError) -> None:
        self._running.pop(node, None)
        self.broken += 1
        self._say("", f"{self._red('error:')} {format_error(error)}", always=True)

    def note(self, text: str) -> None:
        self._say("", printable(text), always=True)

    def end(self) -> None:
        """Write all that was said and leave nothing else on the terminal. What is said later begins anew."""
        screen, self._screen = self._screen, None
        if screen is not None:
            screen.stop()

    # Lines -------------------------------------------------------------------------------------------------------

    def _say(self, word: str, what: str, more: str = "", always: bool = False) -> None:
        if self.quiet and not always:
            return
        self._said.append((word, what, more))
        if self.live:
            self._draw_from_now_on()
        elif not self._writing:  # else a signal came while a line was written: that one goes on with this one
            self._writing = True
            try:
                while self._said:
                    self.write(self._line(*self._said.popleft()) + "\n")
            finally:
                self._writing = False

    def _line(self, word: str, what: str, more: str) -> str:
        return f"{word.ljust(10)}{self.name(what)}{more}" if word else what

    def write(self, text: str) -> None:
        """Write to the terminal or file; when it is gone, the build goes on in silence."""
        if self.out is None:
            return
        try:
            self.out.write(text)
            self.out.flush()
        except (OSError, ValueError):
            self.out = None

    def _draw_from_now_on(self) -> None:
        if self._screen is None:
            self._screen = _Screen(self)

    def _red(self, text: str) -> str:
        return f"\x1b[1;31m{text}\x1b[0m" if self.live and not os.environ.get("NO_COLOR") else text

    # What the drawing thread asks for ----------------------------------------------------------------------------

    def take_lines(self, held: list[str], over: bool) -> list[str]:
        """The lines for all that was said. Restored targets are held back, in `held`, until something else is said or,
        if their burst may be `over`, none is added."""
        before = len(held)
        made: list[tuple[str, str]] = []
        texts: list[str] = []
        while self._said:
            word, what, more = self._said.popleft()
            if word == "restored":
                held.append(what)
            elif word == "made" and "\n" not in more:
                made.append((what, more))
            else:
                texts.append(self._line(word, what, more))
        lines: list[str] = []
        if held and (made or texts or (over and len(held) == before)):
            lines = self._sum_up("restored", [(node, "") for node in held])
            held.clear()
        return [*lines, *self._sum_up("made", made), *texts]

    def _sum_up(self, word: str, told: list[tuple[str, str]]) -> list[str]:
        if len(told) <= SINGLY:
            return [self._line(word, node, more) for node, more in told]
        return [f"{word.ljust(10)}{len(told)} targets ({self.name(told[0][0])} … {self.name(told[-1][0])})"]

    def region(self) -> list[str]:
        """The running steps, the longest running first, and a line of counts; as many as the terminal has room for."""
        assert self.out is not None
        columns, rows = size(self.out)
        now = time.monotonic()
        running = sorted(self._running.copy().items(), key=lambda one: one[1][0])
        room = max(0, min(SHOWN, rows - 3))
        lines = [self._step(node, now - since, expected) for node, (since, expected) in running[:room]]
        if len(running) > room and lines:
            lines[-1] = f"          and {len(running) - room + 1} more"
        return [clip(line, columns - 1) for line in (*lines, self._counts(len(running), now))]

    def _step(self, node: str, seconds: float, expected: float | None) -> str:
        of = f"  of about {about(expected)}" if expected is not None and expected >= 10 else ""
        took = in_whole_units(seconds)
        return f"{' ' * (8 - width(took))}{took}  {self.name(node)}{of}"

    def _counts(self, running: int, now: float) -> str:
        left = max(self._left, running)
        parts = [f"{left} left" if left else ""]
        rest = self._rest
        if rest is not None and rest.seconds:
            seconds = rest.seconds - (now - self._foreseen_at)
            if seconds > 0:
                parts.append(f"{'more than' if rest.untimed else 'about'} {about(seconds)}")
        parts.append(f"{self.made} made" if self.made else "")
        parts.append(f"{self.taken} from the store" if self.taken else "")
        parts.append(f"{self.broken} failed" if self.broken else "")
        return " " * 10 + ", ".join(part for part in parts if part)


class _Screen:
    """The thread that draws."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._held: list[str] = []
        self._began = self._heard = time.monotonic()
        self._shown: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(FRAME):
            now = time.monotonic()
            before = len(self._held)
            lines = self._progress.take_lines(self._held, now - self._heard > CALM)
            if len(self._held) > before:
                self._heard = now
            self._draw(lines, self._progress.region() if now - self._began > CALM and self._progress.out else [])

    def _draw(self, lines: list[str], region: list[str]) -> None:
        if lines or region != self._shown:
            self._progress.write(drawing(lines, region) if region or self._shown else "".join(f"{x}\n" for x in lines))
            self._shown = region

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        lines = self._progress.take_lines(self._held, False)
        self._draw([*lines, *self._progress.take_lines(self._held, True)], [])

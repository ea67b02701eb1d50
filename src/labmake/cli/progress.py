"""Progress: what runs, what is left, what was cached - one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

from labmake.errors import LabmakeError, format_error, printable
from labmake.layout import short


class Progress:
    """Tells a build on `out` (stderr). Targets are called as the experiment's author writes them."""

    def __init__(self, out: TextIO | None = None, quiet: bool = False) -> None:
        self.out = out or sys.stderr
        self.experiment = ""
        self.live = self.out.isatty()
        self.quiet = quiet
        self.made = self.taken = self.broken = 0
        self._waiting = self._running = 0
        self._now: list[str] = []
        self._shown_at = 0.0
        self._width = 0

    def name(self, node: str) -> str:
        """A node as it is shown."""
        return printable(short(node, self.experiment)).replace("\n", "\\n")

    def planned(self, waiting: int, running: int) -> None:
        self._waiting, self._running = waiting, running
        self._draw()

    def started(self, node: str, why: str) -> None:
        self._now.append(node)
        self._draw()

    def finished(self, node: str, seconds: float, notes: list[str]) -> None:
        self._forget(node)
        self.made += 1
        self._line(f"made      {self.name(node)}  {_seconds(seconds)}")
        if notes:
            shown = ", ".join(notes[:4]) + (f" and {len(notes) - 4} more" if len(notes) > 4 else "")
            self._line(f"          it also wrote {printable(shown)}: no outputs, so they were dropped")

    def restored(self, node: str) -> None:
        self.taken += 1
        self._line(f"restored  {self.name(node)}")

    def failed(self, node: str, error: LabmakeError) -> None:
        self._forget(node)
        self.broken += 1
        self._clear()
        self.out.write(f"error: {format_error(error)}\n")
        self.out.flush()

    def note(self, text: str) -> None:
        self._line(printable(text), always=True)

    def end(self) -> None:
        """Clear the live line."""
        self._clear()
        self.out.flush()

    def _forget(self, node: str) -> None:
        if node in self._now:
            self._now.remove(node)

    def _line(self, text: str, always: bool = False) -> None:
        if self.quiet and not always:
            return
        self._clear()
        self.out.write(text + "\n")
        self._draw()

    def _draw(self) -> None:
        """The live line, at most 20 times a second."""
        now = time.monotonic()
        if not self.live or now - self._shown_at < 0.05:
            return
        self._shown_at = now
        names = ", ".join(self.name(node) for node in self._now[:3])
        text = (
            f"{self._running} running, {self._waiting} waiting, {self.made} made, {self.taken} from the store  {names}"
        )
        text = text[: shutil.get_terminal_size().columns - 1]
        self.out.write("\r" + text.ljust(self._width))
        self._width = len(text)
        self.out.flush()

    def _clear(self) -> None:
        if self._width:
            self.out.write("\r" + " " * self._width + "\r")
            self._width = 0


def _seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"

"""Interrupts of a command that has something to finish: a signal tells it, and ends the waiting that it is in."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any


class Signals:
    """While it is entered, SIGINT and SIGTERM call `act`, and wake a select on `pipe()[0]`."""

    _pipe: tuple[int, int] | None = None

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act
        self.before: dict[int, Any] = {}

    @classmethod
    def pipe(cls) -> tuple[int, int]:
        """The pipe that a signal writes to, made once: (to read from, to write to)."""
        if cls._pipe is None:
            cls._pipe = os.pipe()
            for end in cls._pipe:
                os.set_blocking(end, False)
        return cls._pipe

    def __enter__(self) -> None:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._handle)
            signal.set_wakeup_fd(Signals.pipe()[1], warn_on_full_buffer=False)
        except ValueError:
            pass  # not the main thread: signals are another's business

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.act()

    def __exit__(self, *_: object) -> None:
        if self.before:
            signal.set_wakeup_fd(-1)
        for number, handler in self.before.items():
            signal.signal(number, handler)

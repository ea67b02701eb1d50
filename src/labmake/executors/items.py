"""The process that runs the items of a batch one after another, as its worker has it.

The worker makes the step folder of an item as for any step, always at the same path, says in one line of JSON to go on
({folder, env}), and hears one line when the item has ended: exit code, peak memory, and whether the process takes
another. Named pipes carry the lines, for the process may be the child of a fork server, or have another program around
it (`wrap`), which hand nothing down.
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import termios
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from labmake.executors.forking import Gone, Unfit
from labmake.executors.process import Process, Waiting, stop

PIPES = ("items.in", "items.out")
"""The names of the pipes in the folder that LABMAKE_ITEMS names: what the process reads, and what it writes."""

PATIENCE = 5.0
"""Seconds that the process has to end by itself after its last item, before it is asked to."""


class Unbegun(Exception):
    """The process ended before it began the item, which is to run in another one."""


@dataclass
class Items:
    """A process for items (a process.Process, which ends when the item does), and the pipes to and from it."""

    folder: Path
    go: int = -1
    said: int = -1
    path: str = ""
    """Of the step folder of all items."""
    process: Process | None = None
    count: int = 0
    over: bool = False
    """Whether it takes no more items."""
    heard: bytes = field(default=b"")

    def __post_init__(self) -> None:
        for name in PIPES:
            (self.folder / name).unlink(missing_ok=True)
            os.mkfifo(self.folder / name)
        # Opened for both, neither end waits for the process to open its own.
        self.go = os.open(self.folder / PIPES[0], os.O_RDWR)
        self.said = os.open(self.folder / PIPES[1], os.O_RDWR | os.O_NONBLOCK)

    def tell(self, path: str, env: Mapping[str, str]) -> None:
        """Have the item run whose folder is there."""
        self.path = path
        self.count += 1
        os.write(self.go, json.dumps({"folder": path, "env": dict(env)}).encode() + b"\n")

    @property
    def group(self) -> int:
        assert self.process is not None
        return self.process.group

    @property
    def news(self) -> tuple[int, ...]:
        assert self.process is not None
        return (*self.process.news, self.said)

    def ended(self) -> tuple[int, int] | None:
        """How the item ended, as a process would have. Raises Unbegun, and what the process raises."""
        assert self.process is not None
        try:
            ended = self.process.ended()
        except (Unfit, Gone):
            self.over, self.process = True, None
            raise
        line = self._line()
        if ended is not None:
            self.over, self.process = True, None
        if line:
            code, peak, more = (int(number) for number in line.split())
            self.over = self.over or not more
            return code << 8, peak
        if ended is not None and self.count > 1 and _unread(self.go):
            raise Unbegun
        return ended

    def _line(self) -> bytes:
        try:
            self.heard += os.read(self.said, 4096)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
        line, end, rest = self.heard.partition(b"\n")
        if not end:
            return b""
        self.heard = rest
        return line

    def end(self) -> None:
        """Kill it at once, since nobody waits for it."""
        process, self.process, self.over = self.process, None, True
        if process is not None:
            process.end()

    def finish(self, waiting: Waiting, kill: bool) -> None:
        """Let it end, or `kill` it, and wait until it has."""
        process, self.process, self.over = self.process, None, True
        self._close_go()
        if process is not None:
            if kill:
                stop(process.group, 9)
            try:
                waiting.wait(process, PATIENCE, lambda: None)
            except (Unfit, Gone):
                pass

    def close(self) -> None:
        """Give back what is open."""
        self.end()
        self._close_go()
        if self.said >= 0:
            os.close(self.said)
            self.said = -1

    def _close_go(self) -> None:
        if self.go >= 0:
            os.close(self.go)
            self.go = -1


def _unread(descriptor: int) -> int:
    """How many bytes wait in a pipe."""
    found = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, found)
    return found[0]

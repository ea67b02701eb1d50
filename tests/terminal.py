"""A pseudo-terminal for stories: a program on it, what is typed, and what a person would see on the screen."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence

import pyte
from space import Space

START = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal the controlling one, so that Ctrl-C typed on it becomes a signal, and starts a program."""

LABMAKE = (sys.executable, "-m", "labmake.cli.entry")


class Terminal:
    """A program, labmake if none is named, on a pseudo-terminal, with what a person would see on its screen."""

    def __init__(
        self,
        space: Space,
        *words: str,
        columns: int = 100,
        rows: int = 60,
        program: Sequence[str] = LABMAKE,
        **env: str,
    ) -> None:
        self.master, slave = os.openpty()
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.resize(columns, rows)
        environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "LABMAKE_BUDGET")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *program, *words],
            cwd=space.root,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environment, "TERM": "xterm", **env},
            start_new_session=True,
        )
        os.close(slave)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    @property
    def lines(self) -> list[str]:
        """The screen's lines, without empty ones at the end."""
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def read(self) -> bool:
        """Take what was written; False once the process has ended."""
        if not select.select([self.master], [], [], 60)[0]:
            self.process.kill()
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:  # so Linux says that nobody has the other side any more
            data = b""
        self.raw += data
        self.stream.feed(data)
        return bool(data)

    def until(self, seen: Callable[[str], object]) -> None:
        """Wait until the screen shows something; after two minutes it never will."""
        late = time.monotonic() + 120
        while not seen(self.text):
            if time.monotonic() > late or not self.read():
                self.process.kill()
                raise AssertionError(f"it never came:\n{self.text}")

    def close(self) -> None:
        """End the program, whatever it is doing."""
        os.close(self.master)
        self.process.kill()
        self.process.wait()

    def end(self, code: int = 0) -> list[str]:
        """Wait for the end; the lines that stay on the screen."""
        while self.read():
            pass
        os.close(self.master)
        assert self.process.wait(timeout=60) == code, self.text
        return self.lines

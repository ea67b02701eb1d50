"""A step's process: started in its step folder, waited for, stopped when its time is over or nobody waits for it."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Protocol

from labmake.frozen import frozen

GRACE = 5.0
"""Seconds between the polite signal and SIGKILL when a step exceeds its time."""

LONG = 0.05
"""Seconds after which a step counts as one that a person may want to follow."""

PYSTEP = [sys.executable, "-P", os.path.join(os.path.dirname(os.path.abspath(__file__)), "pystep.py")]
"""The command of a Python step: the interpreter that labmake runs in, without the program's folder in its path."""

_DEFAULT = [signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD]
"""Signals whose handling a step does not inherit from its worker."""

_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024


@frozen
class Ended:
    """How a process ended: exit status (negative: signal), seconds, peak memory in bytes, whether its time was over."""

    status: int
    seconds: float
    peak: int
    timed_out: bool


class Abandoned(BaseException):
    """The coordinator is gone: nobody waits for the step, which was killed."""


class Process(Protocol):
    """A process that runs a step: the worker's own child, or that of a fork server."""

    @property
    def group(self) -> int:
        """The process group that it leads."""
        ...

    @property
    def news(self) -> tuple[int, ...]:
        """Descriptors of which one becomes readable when it may have ended, where SIGCHLD does not tell that."""
        ...

    def ended(self) -> tuple[int, int] | None:
        """Its status as the system gives it and its peak memory in the system's unit; None while it runs.

        What it leaves behind in its group is killed by then.
        """
        ...

    def end(self) -> None:
        """Kill it and all of its group, since nobody waits for it."""
        ...


@frozen
class Child:
    """A process that this one has started."""

    group: int
    news: tuple[int, ...] = ()

    def ended(self) -> tuple[int, int] | None:
        pid, status, usage = os.wait4(self.group, os.WNOHANG)
        if not pid:
            return None
        stop(self.group, signal.SIGKILL)
        return status, usage.ru_maxrss

    def end(self) -> None:
        stop(self.group, signal.SIGKILL)
        os.waitpid(self.group, 0)


class Waiting:
    """Waits for processes and for the coordinator at once, in one thread.

    The end of a child wakes it through a pipe (SIGCHLD), what the coordinator says through `requests`. `heard` gets
    each piece of it; an empty one means that the coordinator is gone.
    """

    def __init__(self, requests: int, heard: Callable[[bytes], None]) -> None:
        self._requests, self._heard = requests, heard
        self._woken, wake = os.pipe()
        for end in (self._woken, wake):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(self._woken, select.POLLIN)
        self._poll.register(requests, select.POLLIN)

    def wait(self, process: Process, limit: float, long: Callable[[], None]) -> Ended:
        """Wait for a process; `limit` seconds at most, 0 for any time.

        `long` is called if it runs for longer than LONG. Raises Abandoned if the coordinator goes meanwhile.
        """
        news = process.news
        for descriptor in news:
            self._poll.register(descriptor, select.POLLIN)
        try:
            return self._wait(process, limit, long)
        finally:
            for descriptor in news:
                self._poll.unregister(descriptor)

    def _wait(self, process: Process, limit: float, long: Callable[[], None]) -> Ended:
        start = time.monotonic()
        told = timed_out = False
        ask, kill = limit or 0.0, 0.0  # when to ask the step to end, and when to end it
        while True:
            ended = process.ended()
            passed = time.monotonic() - start
            if ended is not None:
                break
            if not told and passed >= LONG:
                told = True
                long()
            if ask and passed >= ask:
                timed_out = True
                ask, kill = 0.0, passed + GRACE
                stop(process.group, signal.SIGTERM)
            if kill and passed >= kill:
                kill = 0.0
                stop(process.group, signal.SIGKILL)
            moments = [moment for moment in (ask, kill, 0.0 if told else LONG) if moment]
            self._sleep(process, min(moments) - passed if moments else None)
        status, peak = ended
        return Ended(os.waitstatus_to_exitcode(status), passed, peak * _PEAK_UNIT, timed_out)

    def _sleep(self, process: Process, seconds: float | None) -> None:
        for descriptor, _ in self._poll.poll(None if seconds is None else max(seconds, 0.0) * 1000 + 1):
            if descriptor == self._woken:
                os.read(descriptor, 512)
                continue
            if descriptor in process.news:
                continue
            try:
                self._hear()
            except Abandoned:
                process.end()
                raise

    def look(self) -> None:
        """Hear what the coordinator has said meanwhile. Raises Abandoned if it has gone."""
        while any(descriptor == self._requests for descriptor, _ in self._poll.poll(0)):
            self._hear()

    def _hear(self) -> None:
        piece = os.read(self._requests, 1 << 16)
        if not piece:
            raise Abandoned
        self._heard(piece)


def redirect(log: int) -> None:
    """Let this process, and so each that it starts, have an empty stdin, and write both outputs to `log`."""
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(null)


def start(command: list[str], environment: Mapping[str, str]) -> int:
    """Start a process in its own session and the working directory. Raises OSError if there is no such program."""
    path = _program(command[0], environment.get("PATH", ""))
    try:
        return os.posix_spawn(path, command, environment, setsid=True, setsigdef=_DEFAULT)
    except NotImplementedError:  # a C library without POSIX_SPAWN_SETSID: a process group can be killed as well
        return os.posix_spawn(path, command, environment, setpgroup=0, setsigdef=_DEFAULT)


@lru_cache(maxsize=64)
def _program(name: str, path: str) -> str:
    """Where a program lies, as a shell would find it."""
    return name if os.sep in name else shutil.which(name, path=path) or name


def stop(group: int, number: int) -> None:
    """Send a signal to a process group, if there still is one."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass

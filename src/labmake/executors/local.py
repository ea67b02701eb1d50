"""The local executor: worker processes on this machine, one a slot, fed as resources allow."""

from __future__ import annotations

import gc
import os
import selectors
import shutil
import signal
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from labmake.executors.resources import Lease, Pool, Request
from labmake.executors.wire import CHUNK, Unpacker, Versions, packed

PATIENCE = 10.0
"""Seconds that a worker is given to end by itself."""


@dataclass(slots=True)
class _Slot:
    """A worker process, the pipes to and from it, and what it is doing."""

    pid: int
    requests: int
    answers: int
    unpacker: Unpacker = field(default_factory=Unpacker)
    job: dict[str, Any] | None = None
    lease: Lease | None = None


@dataclass
class Local:
    """Runs jobs in worker processes. `steps` is the folder for step folders, `store` the store's folder, `environment`
    the variables that all steps get; `versions` tells what they imported (it is called in the workers); two of one
    process have their step folders in different `part`s of its folder."""

    steps: Path
    store: Path
    pool: Pool
    limit: int
    environment: Mapping[str, str]
    versions: Versions
    part: str = ""
    _slots: list[_Slot] = field(default_factory=list)
    _started: int = 0
    _waiting: dict[Request, deque[dict[str, Any]]] = field(default_factory=dict)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def __post_init__(self) -> None:
        self.base = own_folder(self.steps) / self.part
        _sweep(self.steps)

    @property
    def waiting(self) -> int:
        """How many jobs wait for resources."""
        return sum(len(jobs) for jobs in self._waiting.values())

    @property
    def busy(self) -> int:
        """How many jobs run now."""
        return sum(slot.job is not None for slot in self._slots)

    def submit(self, job: dict[str, Any], request: Request) -> None:
        """Queue a job; it starts when its resources are free."""
        self._waiting.setdefault(request, deque()).append(job)

    def drop_waiting(self) -> None:
        """Forget the jobs that have not started."""
        self._waiting.clear()

    def watch(self, descriptor: int) -> None:
        """Let `wait` also return when `descriptor` (of a signal) becomes readable."""
        self._selector.register(descriptor, selectors.EVENT_READ, None)

    def start_ready(self, grant: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Start what fits, the most demanding first (a small step always finds room later); returns what started.

        A job that `grant` does not let start is forgotten: who refused it knows when to submit it again.
        """
        started: list[dict[str, Any]] = []
        running = self.busy
        if running >= self.limit:
            return started
        for request in sorted(self._waiting, key=lambda r: (r.gpus, r.memory, r.cpus), reverse=True):
            jobs = self._waiting[request]
            while jobs and running < self.limit:
                lease = self.pool.take(request)
                if lease is None:
                    break
                job = jobs.popleft()
                if not grant(job):
                    self.pool.give_back(lease)
                    continue
                self._send(job, lease)
                started.append(job)
                running += 1
            if not jobs:
                del self._waiting[request]
        return started

    def _send(self, job: dict[str, Any], lease: Lease) -> None:
        slot = next((slot for slot in self._slots if slot.job is None), None) or self._start()
        slot.job, slot.lease = job, lease
        data = memoryview(packed({**job, "cpus": lease.cpus, "gpus": lease.gpus}))
        try:
            while data:
                data = data[os.write(slot.requests, data) :]
        except BrokenPipeError:
            pass  # the worker died; wait() sees the end of its answers

    def _start(self) -> _Slot:
        """Fork a worker: it has labmake loaded at once, where a program of its own would take 100 ms to begin.

        Its program is imported before: in the child, a module that another thread was just importing stays locked.
        """
        from labmake.executors.worker import serve

        base = self.base / str(self._started)
        self._started += 1
        requests, to_worker = os.pipe()
        from_worker, answers = os.pipe()
        pid = os.fork()
        if pid == 0:
            shared = (base, self.store, self.environment, self.versions)
            _become_worker(requests, answers, lambda: serve(*shared, requests, answers))
        os.close(requests)
        os.close(answers)
        slot = _Slot(pid, to_worker, from_worker)
        self._slots.append(slot)
        self._selector.register(from_worker, selectors.EVENT_READ, slot)
        return slot

    def wait(self, timeout: float | None) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Wait until a job ends, a watched descriptor is readable, or `timeout` seconds; returns (job, answer)s."""
        done = []
        for key, _ in self._selector.select(timeout):
            slot = key.data
            if slot is None:
                os.read(key.fd, 512)
                continue
            data = os.read(key.fd, CHUNK)
            done += [self._finish(slot, answer) for answer in slot.unpacker.feed(data)]
            if not data:
                done += self._died(slot)
        return done

    def _finish(self, slot: _Slot, answer: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        job, lease = slot.job, slot.lease
        assert job is not None and lease is not None
        self.pool.give_back(lease)
        slot.job = slot.lease = None
        return job, answer

    def _died(self, slot: _Slot) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """A worker's output has ended: forget it; the job it had has failed."""
        self._selector.unregister(slot.answers)
        self._slots.remove(slot)
        _close(slot.requests)
        os.close(slot.answers)
        _, status = os.waitpid(slot.pid, 0)
        if slot.job is None:
            return []
        facts = {"status": os.waitstatus_to_exitcode(status)}
        return [self._finish(slot, {"ok": False, "why": "worker", "facts": facts})]

    def kill(self) -> None:
        """End the running steps at once: a worker kills its step when its requests end."""
        for slot in self._slots:
            _close(slot.requests)
            slot.requests = -1

    def close(self) -> None:
        """End the workers and remove their folders."""
        self.kill()
        for slot in self._slots:
            _reap(slot.pid)
            os.close(slot.answers)
        self._slots.clear()
        shutil.rmtree(self.base, ignore_errors=True)


def own_folder(steps: Path) -> Path:
    """This process's folder in that for step folders; one that it leaves behind is removed when it is no more."""
    return steps / f"{socket.gethostname()}-{os.getpid()}"


def _become_worker(requests: int, answers: int, serve: Callable[[], None]) -> NoReturn:
    """Go on as a worker, in the child of a fork, and never return.

    Nothing of the coordinator's is touched: its database and locks are left alone, and what it has open is closed, for
    a lease that a worker still had open would outlive its holder.
    """
    code = 1
    shown = os.dup(2)
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        gc.disable()  # a worker makes no cycles that matter
        gc.freeze()  # nothing that is there now is ever collected, and closes a number that is somebody else's by then
        kept = sorted((2, requests, answers, shown))
        for below, above in zip(kept, [*kept[1:], _open_limit()], strict=True):
            os.closerange(below + 1, above)
        serve()
        code = 0
    except BaseException:
        os.write(shown, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _open_limit() -> int:
    """A number that no open descriptor has."""
    try:
        return max(int(name) for name in os.listdir("/dev/fd")) + 1
    except (OSError, ValueError):
        return os.sysconf("SC_OPEN_MAX")


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)


def _reap(pid: int) -> None:
    """Wait for the end of a worker; one that does not end is killed."""
    end = time.monotonic() + PATIENCE
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(0.001)


def _sweep(steps: Path) -> None:
    """Remove the folders that killed coordinators of this host left; their workers ended within a moment of them."""
    prefix = f"{socket.gethostname()}-"
    try:
        names = os.listdir(steps)
    except OSError:
        return
    for name in names:
        number = name.removeprefix(prefix)
        if name.startswith(prefix) and number.isdigit() and not _alive(int(number)):
            shutil.rmtree(steps / name, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
"""The signals that ask a build to stop."""

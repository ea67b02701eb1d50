"""The local executor: worker processes on this machine, one a slot, fed as resources allow.

Jobs with the same batch key, which wait for the same resources, are sent to one worker as one batch; it answers them
one by one. What is booked is booked for the whole batch.
"""

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
    """A worker process, the pipes to and from it, and what it is doing: jobs by their id, in the order in which they
    run. `stopped`: it was told to begin none of the rest."""

    pid: int
    requests: int
    answers: int
    unpacker: Unpacker = field(default_factory=Unpacker)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    lease: Lease | None = None
    stopped: bool = False


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
    _waiting: dict[tuple[Request, str], deque[dict[str, Any]]] = field(default_factory=dict)
    """Jobs by what they book and their batch's key ("": none)."""
    _begun: list[dict[str, Any]] = field(default_factory=list)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def __post_init__(self) -> None:
        self.base = own_folder(self.steps) / self.part
        _sweep(self.steps)

    @property
    def waiting(self) -> int:
        """How many jobs wait for resources."""
        return sum(len(jobs) for jobs in self._waiting.values())

    @property
    def queued(self) -> int:
        """How many items of batches wait in a worker for those before them."""
        return sum(max(len(slot.jobs) - 1, 0) for slot in self._slots)

    @property
    def busy(self) -> int:
        """How many workers run something now."""
        return sum(bool(slot.jobs) for slot in self._slots)

    def submit(self, job: dict[str, Any], request: Request) -> None:
        """Queue a job; it starts when its resources are free."""
        key = job["batch"]["key"] if job["batch"] else ""
        self._waiting.setdefault((request, key), deque()).append(job)

    def drop_waiting(self) -> None:
        """Forget the jobs that have not started; a batch ends with the item that runs, and the rest is answered as
        dropped."""
        self._waiting.clear()
        for slot in self._slots:
            if len(slot.jobs) > 1 and not slot.stopped:
                slot.stopped = True
                _write(slot.requests, {"stop": True})

    def take_begun(self) -> list[dict[str, Any]]:
        """The jobs that have begun since this was last asked."""
        begun, self._begun = self._begun, []
        return begun

    def watch(self, descriptor: int) -> None:
        """Let `wait` also return when `descriptor` (of a signal) becomes readable."""
        self._selector.register(descriptor, selectors.EVENT_READ, None)

    def start_ready(self, grant: Callable[[dict[str, Any]], bool], full: bool = False) -> bool:
        """Start what fits, the most demanding first (a small step always finds room later); whether something started.

        A job that `grant` does not let start is forgotten: who refused it knows when to submit it again. With `full`,
        a batch starts only if enough wait to fill one for each slot that is free; else what waits is shared evenly.
        """
        started = False
        running = self.busy
        if running >= self.limit:
            return started
        for key in sorted(self._waiting, key=lambda k: (k[0].gpus, k[0].memory, k[0].cpus), reverse=True):
            request, jobs = key[0], self._waiting[key]
            while jobs and running < self.limit:
                count = self._share(request, jobs, self.limit - running, full)
                lease = self.pool.take(request) if count else None
                if lease is None:
                    break
                granted: list[dict[str, Any]] = []
                while jobs and len(granted) < count:
                    job = jobs.popleft()
                    if grant(job):
                        granted.append(job)
                if not granted:
                    self.pool.give_back(lease)
                    continue
                self._send(granted, lease)
                started = True
                running += 1
            if not jobs:
                del self._waiting[key]
        return started

    def _share(self, request: Request, jobs: deque[dict[str, Any]], free: int, full: bool) -> int:
        """How many of these jobs one worker gets now; 0 if they shall wait for more."""
        batch = jobs[0]["batch"]
        most: int = batch["most"] if batch else 1
        if most == 1:
            return 1
        slots = max(min(free, self.pool.room(request)), 1)
        if full:
            return most if len(jobs) >= most * slots else 0
        return min(most, -(-len(jobs) // slots))

    def _send(self, jobs: list[dict[str, Any]], lease: Lease) -> None:
        slot = next((slot for slot in self._slots if not slot.jobs), None) or self._start()
        slot.jobs, slot.lease, slot.stopped = {job["id"]: job for job in jobs}, lease, False
        self._begun += jobs if _at_once(jobs[0]) else jobs[:1]
        # One message: a worker that answered the first item while the others are still written could block both ends.
        _write(slot.requests, {"items": jobs, "cpus": lease.cpus, "gpus": lease.gpus})

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
        job = slot.jobs.pop(answer["id"])
        if not slot.jobs:
            assert slot.lease is not None
            self.pool.give_back(slot.lease)
            slot.lease = None
        elif not slot.stopped and not _at_once(job):
            self._begun.append(next(iter(slot.jobs.values())))
        return job, answer

    def _died(self, slot: _Slot) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """A worker's output has ended: forget it. The job it had has failed; of a batch that which ran, all of them if
        they ran at once. The rest was not begun."""
        self._selector.unregister(slot.answers)
        self._slots.remove(slot)
        _close(slot.requests)
        os.close(slot.answers)
        _, status = os.waitpid(slot.pid, 0)
        slot.stopped = True
        jobs = list(slot.jobs.values())
        ran = len(jobs) if jobs and _at_once(jobs[0]) else 1
        failed = {"ok": False, "why": "worker", "facts": {"status": os.waitstatus_to_exitcode(status)}}
        return [
            self._finish(slot, {"id": job["id"], **(failed if number < ran else {"ok": False, "why": "dropped"})})
            for number, job in enumerate(jobs)
        ]

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


def _at_once(job: Mapping[str, Any]) -> bool:
    """Whether all items of a job's batch are made at once, by one command."""
    return bool(job["batch"] and job["batch"]["row"] is not None)


def _write(requests: int, message: dict[str, Any]) -> None:
    data = memoryview(packed(message))
    try:
        while data:
            data = data[os.write(requests, data) :]
    except BrokenPipeError:
        pass  # the worker died; wait() sees the end of its answers


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

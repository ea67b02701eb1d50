"""The local executor: worker processes on this machine, one a slot, fed as resources allow."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labmake.executors.resources import Lease, Pool, Request

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "JULIA_NUM_THREADS",
    "LABMAKE_CPUS",
)
"""Variables by which libraries are told how many threads a step has booked."""


@dataclass(slots=True)
class _Slot:
    """A worker process and what it is doing."""

    process: subprocess.Popen[bytes]
    buffer: bytearray = field(default_factory=bytearray)
    job: dict[str, Any] | None = None
    lease: Lease | None = None


@dataclass
class Local:
    """Runs jobs in worker processes. `steps` is the folder for step folders, `store` the store's folder."""

    steps: Path
    store: Path
    pool: Pool
    limit: int
    _slots: list[_Slot] = field(default_factory=list)
    _started: int = 0
    _waiting: dict[Request, deque[dict[str, Any]]] = field(default_factory=dict)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def __post_init__(self) -> None:
        self.base = self.steps / f"{socket.gethostname()}-{os.getpid()}"
        _sweep(self.steps)

    @property
    def waiting(self) -> int:
        """How many jobs wait for resources."""
        return sum(len(jobs) for jobs in self._waiting.values())

    @property
    def running(self) -> list[dict[str, Any]]:
        """The jobs that run now."""
        return [slot.job for slot in self._slots if slot.job is not None]

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
        started = []
        for request in sorted(self._waiting, key=lambda r: (r.gpus, r.memory, r.cpus), reverse=True):
            jobs = self._waiting[request]
            while jobs and len(self.running) < self.limit:
                lease = self.pool.take(request)
                if lease is None:
                    break
                job = jobs.popleft()
                if not grant(job):
                    self.pool.give_back(lease)
                    continue
                self._send(job, lease)
                started.append(job)
            if not jobs:
                del self._waiting[request]
        return started

    def _send(self, job: dict[str, Any], lease: Lease) -> None:
        slot = next((slot for slot in self._slots if slot.job is None), None) or self._start()
        job["env"].update(dict.fromkeys(THREADS, str(lease.cpus)))
        job["env"]["CUDA_VISIBLE_DEVICES"] = ",".join(lease.gpus)
        slot.job, slot.lease = job, lease
        assert slot.process.stdin is not None
        try:
            slot.process.stdin.write(json.dumps(job).encode() + b"\n")
            slot.process.stdin.flush()
        except BrokenPipeError:
            pass  # the worker died; wait() sees the end of its output

    def _start(self) -> _Slot:
        base = self.base / str(self._started)
        self._started += 1
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "labmake.executors.worker", str(base), str(self.store)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=1 << 16,
        )
        slot = _Slot(process)
        self._slots.append(slot)
        assert process.stdout is not None
        self._selector.register(process.stdout, selectors.EVENT_READ, slot)
        return slot

    def wait(self, timeout: float | None) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Wait until a job ends, a watched descriptor is readable, or `timeout` seconds; returns (job, answer)s."""
        done = []
        for key, _ in self._selector.select(timeout):
            slot = key.data
            if slot is None:
                os.read(key.fd, 512)
                continue
            data = os.read(key.fd, 1 << 16)
            slot.buffer += data
            while (end := slot.buffer.find(b"\n")) >= 0:
                answer = json.loads(slot.buffer[:end])
                del slot.buffer[: end + 1]
                done.append(self._finish(slot, answer))
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
        self._selector.unregister(slot.process.stdout)  # type: ignore[arg-type]
        status = slot.process.wait()
        self._slots.remove(slot)
        if slot.job is None:
            return []
        return [self._finish(slot, {"ok": False, "why": "worker", "facts": {"status": status}})]

    def kill(self) -> None:
        """End the running steps at once: a worker kills its step when its stdin ends."""
        for slot in self._slots:
            if slot.process.poll() is None and slot.process.stdin is not None:
                try:
                    slot.process.stdin.close()
                except OSError:
                    pass

    def close(self) -> None:
        """End the workers and remove their folders."""
        self.kill()
        for slot in self._slots:
            try:
                slot.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                slot.process.kill()
                slot.process.wait()
        shutil.rmtree(self.base, ignore_errors=True)


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

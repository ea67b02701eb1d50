"""The runner: has decided actions run, each once at a time on this machine, and says who can go on.

An action that another task of this build runs, or that another build runs (a lease), is waited for; then its trace is
there. A lease is taken when the inputs are ready and the resources granted, and given back when the trace is written;
who does not get it gives the resources back and waits without holding anything.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from labmake.engine.nodes import Again, Run
from labmake.engine.services import Services
from labmake.errors import LabmakeError
from labmake.executors.resources import Pool, Request
from labmake.model import Digest
from labmake.store.leases import Leases

T = TypeVar("T")
Job = dict[str, Any]


class Executor(Protocol):
    """Runs jobs elsewhere; see executors.local."""

    @property
    def pool(self) -> Pool: ...
    @property
    def waiting(self) -> int: ...
    @property
    def running(self) -> list[Job]: ...
    def submit(self, job: Job, request: Request) -> None: ...
    def start_ready(self, grant: Callable[[Job], bool]) -> list[Job]: ...
    def wait(self, timeout: float | None) -> list[tuple[Job, dict[str, Any]]]: ...
    def watch(self, descriptor: int) -> None: ...
    def drop_waiting(self) -> None: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...


class Runner(Generic[T]):
    """The steps of one build that run or wait for it; a `T` waits for a step. The executor is made when needed."""

    def __init__(self, services: Services, make: Callable[[], Executor], wake: int) -> None:
        self._services, self._make, self._wake = services, make, wake
        self._executor: Executor | None = None
        self._leases = Leases(services.project.state / "leases")
        self._waiters: dict[Digest, list[T]] = {}
        self._elsewhere: set[Digest] = set()
        self._freed: deque[Digest] = deque()
        self._pipe: tuple[int, int] | None = None
        self.killed = False

    @property
    def busy(self) -> bool:
        """Whether something runs here, or elsewhere for us."""
        return bool(self._elsewhere or self._freed or (self._executor and self._executor.running))

    def submit(self, waiter: T, run: Run) -> LabmakeError | None:
        """Have a step run; an error if this machine can never grant what it asks for."""
        executor = self._running_executor()
        refusal = executor.pool.refusal(run.request)
        if refusal is not None:
            return refusal
        action = run.job["action"]
        waiters = self._waiters.setdefault(action, [])
        waiters.append(waiter)
        if len(waiters) == 1:
            executor.submit({**run.job, "why": run.why}, run.request)
        return None

    def start(self) -> None:
        """Start what resources and leases allow."""
        if self._executor is None:
            return
        for job in self._executor.start_ready(self._grant):
            self._services.reporter.started(job["id"], job["why"])
        self._services.reporter.planned(self._executor.waiting, len(self._executor.running))

    def _grant(self, job: Job) -> bool:
        """Whether a job may start now: nobody runs its action, and since it was looked up nobody has."""
        action = job["action"]
        if not self._leases.take(action):
            self._elsewhere.add(action)
            self._leases.when_free(action, self._tell)
            return False
        if not job["supersede"]:
            self._services.blobs.refresh()
            trace = self._services.blobs.trace(action)
            # Of a trace whose bytes are lost nobody can restore anything: its step has to run.
            if trace is not None and all(map(self._services.blobs.has, trace.outputs.values())):
                self._leases.give_back(action)
                self._freed.append(action)
                return False
        return True

    def _tell(self, action: Digest) -> None:
        """Called by a thread that waited for a lease."""
        self._freed.append(action)
        if self._pipe is not None:
            os.write(self._pipe[1], b"0")

    def wait(self) -> list[tuple[T, Any]]:
        """Wait until something can go on; returns who, with a worker's answer or Again."""
        assert self._executor is not None
        resumed: list[tuple[T, Any]] = []
        finished = [] if self._freed else self._executor.wait(None)
        for job, answer in finished:
            self._leases.give_back(job["action"])
            first, *others = self._waiters.pop(job["action"])
            if self.killed and not answer["ok"]:
                continue  # it was stopped, it did not fail
            if answer["ok"]:
                self._services.blobs.learn([(key, kind, tuple(where)) for key, kind, where in answer["learned"]])
                self._services.reporter.finished(job["id"], answer["seconds"], answer["left"], answer["peak"])
            resumed.append((first, answer))
            resumed.extend((other, Again()) for other in others)
        while self._freed:
            action = self._freed.popleft()
            self._elsewhere.discard(action)
            resumed.extend((waiter, Again()) for waiter in self._waiters.pop(action, ()))
        return resumed

    def _running_executor(self) -> Executor:
        if self._executor is None:
            self._executor = self._make()
            self._pipe = os.pipe()
            for end in self._pipe:
                os.set_blocking(end, False)
            self._executor.watch(self._pipe[0])
            self._executor.watch(self._wake)
        return self._executor

    def stop_starting(self) -> None:
        """Forget what has not started, here or elsewhere."""
        self._elsewhere.clear()
        if self._executor is not None:
            self._executor.drop_waiting()

    def kill(self) -> None:
        """End the running steps at once."""
        self.killed = True
        if self._executor is not None:
            self._executor.kill()

    def close(self) -> None:
        """End the workers."""
        if self._executor is not None:
            self._executor.close()
            self._executor = None

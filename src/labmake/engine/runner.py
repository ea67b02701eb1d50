"""The runner: has decided actions run, each once at a time on this machine, and says who can go on.

An action that another task of this build runs, or that another build runs (a lease), is waited for; then its trace is
there. A lease is taken when the inputs are ready and the resources granted, and given back when the trace is written;
who does not get it gives the resources back and waits without holding anything.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from labmake.engine.nodes import Again, Run
from labmake.engine.services import Services
from labmake.errors import LabmakeError
from labmake.executors.resources import Pool, Request
from labmake.executors.running import is_stopped, running_steps
from labmake.layout import experiment_of, short
from labmake.model import Digest
from labmake.store.digest import hash_file
from labmake.store.leases import Leases

PATIENCE = 2.0
"""Seconds for which a build waits for others without saying so, when it has nothing else to do."""

T = TypeVar("T")
Job = dict[str, Any]


class Executor(Protocol):
    """Runs jobs elsewhere; see executors.local."""

    @property
    def pool(self) -> Pool: ...
    @property
    def waiting(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def busy(self) -> int: ...
    def submit(self, job: Job, request: Request) -> None: ...
    def start_ready(self, grant: Callable[[Job], bool], full: bool = False) -> bool: ...
    def take_begun(self) -> list[Job]: ...
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
        self._elsewhere: dict[Digest, tuple[str, float]] = {}
        """What other builds run: the node that waits for it here, and since when."""
        self._told: set[Digest] = set()
        self._freed: deque[Digest] = deque()
        self._pipe: tuple[int, int] | None = None
        self._hashing = 0
        self._hashed: deque[tuple[T, Any]] = deque()
        self._hashers: threading.Semaphore | None = None
        self.killed = False

    @property
    def busy(self) -> bool:
        """Whether something runs here, or elsewhere for us."""
        return bool(self._elsewhere or self._freed or self._hashing or (self._executor and self._executor.busy))

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

    @property
    def waiting(self) -> bool:
        """Whether a step waits for resources."""
        return self._executor is not None and bool(self._executor.waiting)

    def start(self, full: bool = False) -> bool:
        """Start what resources and leases allow, with `full` only batches that are; whether something started."""
        if self._executor is None:
            return False
        started = self._executor.start_ready(self._grant, full)
        self._tell_begun(self._executor)
        return started

    def _tell_begun(self, executor: Executor) -> None:
        for job in executor.take_begun():
            self._services.reporter.started(job["id"], job["why"])
        self._services.reporter.planned(executor.waiting + executor.queued, executor.busy)

    def _grant(self, job: Job) -> bool:
        """Whether a job may start now: nobody runs its action, and since it was looked up nobody has."""
        action = job["action"]
        self._services.environments.check()
        if not self._leases.take(action):
            self._elsewhere[action] = job["id"], time.monotonic()
            self._leases.when_free(action, self._tell)
            return False
        if not job["supersede"]:
            blobs = self._services.blobs
            blobs.refresh()
            counts = self._services.environments.counts
            trace = blobs.trace(action, False, counts) if blobs.generation != job["looked"] else None
            # Of a trace whose bytes are lost nobody can restore anything: its step has to run.
            if trace is not None and all(map(blobs.has, trace.outputs.values())):
                self._leases.give_back(action)
                self._freed.append(action)
                return False
        return True

    def hash(self, waiter: T, path: str, most: int) -> None:
        """Have a thread hash a file, `most` at once: hashlib lets other threads go on. It dies with the process."""
        self._running_executor()
        self._hashers = self._hashers or threading.Semaphore(most)
        self._hashing += 1
        threading.Thread(target=self._hash, args=(waiter, path, self._hashers), daemon=True).start()

    def _hash(self, waiter: T, path: str, free: threading.Semaphore) -> None:
        found: Any
        with free:
            try:
                found = hash_file(path)
            except (OSError, LabmakeError) as error:
                found = error
        self._hashed.append((waiter, found))
        self._wake_up()

    def _tell(self, action: Digest) -> None:
        """Called by a thread that waited for a lease."""
        self._freed.append(action)
        self._wake_up()

    def _wake_up(self) -> None:
        if self._pipe is not None:
            try:
                os.write(self._pipe[1], b"0")
            except BlockingIOError:  # it is full of such news already
                pass

    def wait(self, seconds: float | None = None) -> list[tuple[T, Any]]:
        """Wait until something can go on, or `seconds`; returns who, with a worker's answer or Again."""
        assert self._executor is not None
        resumed: list[tuple[T, Any]] = []
        patience = self._patience() if seconds is None else seconds
        finished = [] if self._freed or self._hashed else self._executor.wait(patience)
        for job, answer in finished:
            self._leases.give_back(job["action"])
            first, *others = self._waiters.pop(job["action"])
            if self.killed and not answer["ok"]:
                continue  # it was stopped, it did not fail
            if not answer["ok"] and answer["why"] == "dropped":  # an item of a batch that was not begun
                resumed.extend((waiter, Again()) for waiter in (first, *others))
                continue
            if not answer["ok"] and answer["why"] == "worker":
                self._services.blobs.look_everywhere()
            if answer["ok"]:
                self._services.blobs.learn([(key, kind, tuple(where)) for key, kind, where in answer["learned"]])
                self._services.reporter.finished(job["id"], answer["seconds"], answer["left"], answer["peak"])
            resumed.append((first, answer))
            resumed.extend((other, Again()) for other in others)
        if finished:
            self._tell_begun(self._executor)
        while self._hashed:
            resumed.append(self._hashed.popleft())
            self._hashing = max(self._hashing - 1, 0)
        while self._freed:
            action = self._freed.popleft()
            self._elsewhere.pop(action, None)
            resumed.extend((waiter, Again()) for waiter in self._waiters.pop(action, ()))
        return resumed

    def _patience(self) -> float | None:
        """How long to wait at most; says for whom, if only others are waited for and that has taken some time."""
        assert self._executor is not None
        if self._executor.busy or self._elsewhere.keys() <= self._told:
            return None
        now = time.monotonic()
        late = [one for one, (_, since) in self._elsewhere.items() if now - since >= PATIENCE and one not in self._told]
        if late:
            steps = {one.job["action"]: one for one in running_steps(self._services.project.state / "steps")}
        for action in late:
            self._told.add(action)
            node, step = self._elsewhere[action][0], steps.get(action)
            who = "another build makes it"
            if step is not None:
                who += "" if step.project == str(self._services.project.root) else f" in {step.project}"
                who += f" (process {step.process}{', which is stopped' if is_stopped(step.process) else ''})"
            self._services.reporter.note(f"waiting   {short(node, experiment_of(node) or '')}: {who}")
        return PATIENCE

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
        self._hashing = 0
        if self._executor is not None:
            self._executor.kill()

    def close(self) -> None:
        """End the workers."""
        if self._executor is not None:
            self._executor.close()
            self._executor = None

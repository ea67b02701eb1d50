"""The worker: one program that runs steps, one at a time, told by messages on a pipe and answering on another.

It makes the step folder, starts the process, waits, hashes, stores, places and answers with one message; the
coordinator only plans and records. When the pipe ends, the coordinator is gone: the step is killed and the worker ends.

Request: {items: [job], cpus, gpus}, answered by one message for each job; or {stop: true}, after which no further item
of a batch begins. Job: {id, action, text, code, inputs: [[place, digest, location, origin]], stats: [[origin, digest,
stat]], outputs: {name: place}, targets: {place: [file system path, stat or null]}, command: [argv], step:
LABMAKE_STEP's content, lists: {name: [paths]}, batch: {key, most, row} or null, env, seconds, secrets, supersede,
failed, checkpoint and aside: folders, anew: the checkpoint is emptied, static: distributions of its environment or
null, locks: {name: digest}}. Answer: {id, ok, outputs: {name: digest}, placed: {place: stat}, learned, seconds, peak,
log, left, loaded: {distribution: version}} or {id, ok: false, why, facts, kept}; `why` is "dropped" of an item that was
not begun.

With `apart`, a folder, the run makes no result (`labmake check`): what it wrote and its log are moved there, and
nothing is stored or placed.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from labmake.errors import LabmakeError, StoreError
from labmake.executors.forking import OWN, Gone, Servers, Unfit
from labmake.executors.items import Items, Unbegun
from labmake.executors.launch import STEP, launch, missing_output
from labmake.executors.process import Abandoned, Child, Ended, Process, Waiting, redirect, start
from labmake.executors.stepfolder import Box, StepFolders
from labmake.executors.wire import CHUNK, Message, Unpacker, Versions, packed
from labmake.model import Trace
from labmake.store.blobs import Blobs
from labmake.store.digest import FileChanged, hash_file, is_folder, output_digest, plain, render_manifest, scan_folder
from labmake.store.index import MemoryIndex
from labmake.store.place import place_file, place_folder, place_moved

LOG_LIMIT = 4 << 20
"""Bytes of a log that are kept with the trace: its beginning and its end."""


DROPPED: Message = {"ok": False, "why": "dropped", "facts": {}}
"""The answer to an item of a batch that was not begun."""


class Worker:
    """The state of one worker: its folder, its store, what all its steps share of the environment."""

    def __init__(
        self, base: Path, store: Path, environment: Mapping[str, str], versions: Versions, waiting: Waiting
    ) -> None:
        self.base, self.store, self.versions = base, store, versions
        self.loaded = str(base / "loaded")
        self.log = self.job = -1
        self.scratch = str(base / "scratch")
        self.environment = environment
        self.waiting = waiting
        self.servers = Servers(self.scratch)
        self.batch: Items | None = None

    def prepare(self) -> None:
        """Make this worker's folder and open the store, before its first step: so a disk that refuses is an answer."""
        if self.job >= 0:
            return
        shutil.rmtree(self.base, ignore_errors=True)
        os.makedirs(self.scratch)
        self.blobs = Blobs(self.store, MemoryIndex(), follow=False)
        self.folders = StepFolders(self.base, self.blobs)
        self.log = os.open(self.base / "log", os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
        redirect(self.log)
        self.job = os.open(self.base / "job", os.O_CREAT | os.O_WRONLY, 0o644)

    def close(self) -> None:
        """Give back what others may wait for, and end the fork servers."""
        self._end_batch(now=True)
        self.servers.close()
        try:
            if self.job >= 0:
                self.blobs.close()
        except OSError:  # a lock whose process has ended is nobody's
            pass

    def answers(self, request: Message, is_stopped: Callable[[], bool]) -> Iterator[Message]:
        """Run what a request asks for; an answer to each of its items. The first is begun in any case, another one only
        as long as `is_stopped` does not say that it shall not."""
        items: list[Message] = [{**job, "cpus": request["cpus"], "gpus": request["gpus"]} for job in request["items"]]
        if len(items) > 1 and items[0]["batch"]["row"] is not None:
            from labmake.executors.shellbatch import run_together

            yield from run_together(self, items, is_stopped)
            return
        for number, job in enumerate(items):
            if number and is_stopped():
                yield {"id": job["id"], **DROPPED}
                continue
            answer = self.run(job, len(items) > 1)
            if number == len(items) - 1:
                self._end_batch()
            yield {"id": job["id"], **answer}

    def _end_batch(self, now: bool = False) -> None:
        """End the process that runs items, if there is one, and wait for that; `now` kills it."""
        batch, self.batch = self.batch, None
        if batch is not None:
            try:
                if not now:
                    batch.finish(self.waiting, False)
            finally:
                batch.close()

    def run(self, job: Message, one_of_many: bool = False) -> Message:
        """Run one step; every failure is an answer. The process of `one_of_many` stays for the next.

        If the server from which it was forked has gone, it runs once again; then it is the step that ends its server.
        """
        gone = False
        while True:
            try:
                return self._attempt(job, gone, one_of_many)
            except (Unfit, Unbegun):  # from now on such steps start afresh, or this one in another process
                pass
            except Gone:
                gone = True
            self._end_batch(now=True)

    def _attempt(self, job: Message, last: bool, one_of_many: bool) -> Message:
        """Run a step; raises Unfit and Gone (not if it is the last attempt), and then nothing is left of it."""
        try:
            self.prepare()
            at = self.batch.path if self.batch is not None else ""
            box = self.folders.open(job["code"], job["inputs"], job["outputs"].values(), at)
        except FileChanged as error:
            return {"ok": False, "why": "changed", "facts": {"file": str(error)}}
        except OSError as error:
            return disk(error)
        except LabmakeError as error:
            return told(error)
        try:
            return self._run(job, box, last, one_of_many)
        except (Unfit, Gone, Unbegun):
            self.folders.discard(box)
            raise
        except FileChanged as error:
            self.folders.discard(box)
            return {"ok": False, "why": "changed", "facts": {"file": str(error)}}
        except LabmakeError as error:
            self.folders.keep(box, job["failed"] + "/folder")
            return told(error)
        except OSError as error:
            self.folders.discard(box)
            return disk(error)

    def _run(self, job: Message, box: Box, last: bool, one_of_many: bool) -> Message:
        ended = self.process(job, box, last, one_of_many)
        self.redact(job["secrets"])
        if ended.status != 0 or ended.timed_out:
            facts = {"status": ended.status, "seconds": ended.seconds, "peak": ended.peak}
            return self._failure(job, box, "time" if ended.timed_out else "exit", facts)
        missing = missing_output(job, box.path, box.code)
        if missing:
            return self._failure(job, box, "output", missing)
        if "apart" in job:
            self._check_sources(job)
            return self._set_apart(job, box, ended)
        kept = self.keep(job, box, ended, self.log_so_far())
        return {**kept, "left": self.folders.close(box, expected(job)), "learned": self.blobs.take_learned()}

    def process(self, job: Message, box: Box, last: bool, one_of_many: bool = False) -> Ended:
        """Start the step in its folder and wait for it."""
        self._fresh_scratch()
        if job["checkpoint"]:
            _prepare_checkpoint(job)
        if job["static"] is not None:
            Path(self.loaded).unlink(missing_ok=True)
        command, env = launch(job, str(self.base), self.scratch, self.environment, self.loaded)
        os.chdir(box.path)
        if os.fstat(self.log).st_size:
            os.ftruncate(self.log, 0)
        try:
            process = self._start_item(job, box, command, env) if one_of_many else self._start(job, box, command, env)
            if process is None:
                return Ended(127, 0.0, 0, False)
            ended = self.waiting.wait(process, job["seconds"], lambda: self._note(job, box))
            if self.batch is not None and (ended.timed_out or self.batch.over):
                self._end_item_process(self.batch, ended.timed_out)
            return ended
        except Gone as gone:
            if not last:
                raise
            self._end_batch(now=True)
            os.write(self.log, b"labmake: the process that had started the step was ended, twice; the step with it\n")
            return Ended(gone.status or 1, 0.0, 0, False)
        finally:
            os.chdir(self.base)

    def _start_item(self, job: Message, box: Box, command: list[str], env: dict[str, str]) -> Process | None:
        """The process of the batch, told to run this item; None if it cannot be started."""
        batch = self.batch
        if batch is None:
            batch = Items(self.base)
            batch.process = self._start(job, box, command, {**env, "LABMAKE_ITEMS": str(self.base)})
            if batch.process is None:
                batch.close()
                return None
            self.batch = batch
        batch.tell(box.path, {name: env[name] for name in OWN if name in env})
        return batch

    def _end_item_process(self, batch: Items, kill: bool) -> None:
        self.batch = None
        batch.finish(self.waiting, kill)
        batch.close()

    def _start(self, job: Message, box: Box, command: list[str], env: Mapping[str, str]) -> Process | None:
        """The step's process, in the working directory; None, and a line in the log, if it cannot be started."""
        try:
            return self.servers.start(job, box, env) or Child(start(command, env))
        except OSError as error:
            os.write(self.log, f"labmake: cannot start {command[0]}: {error.strerror}\n".encode())
            return None

    def _fresh_scratch(self) -> None:
        try:
            if not os.listdir(self.scratch):
                return
        except OSError:
            pass
        shutil.rmtree(self.scratch, ignore_errors=True)
        os.mkdir(self.scratch)

    def _note(self, job: Message, box: Box) -> None:
        """Say in the file `job` whose log lies beside it and which step folder, for `labmake logs -f` and `labmake
        peek`; empty when no step runs."""
        since = time.time()
        shown = [
            {key: one[key] for key in ("id", "action", "failed", "targets", "outputs")}
            | {"secret": bool(one["secrets"]), "folder": box.path, "since": since}
            for one in job.get("all", [job])
        ]
        try:
            os.pwrite(self.job, json.dumps(shown).encode(), 0)
        except OSError:  # nobody's result depends on it
            pass

    def end_note(self) -> None:
        """Say that no step runs."""
        try:
            if self.job >= 0 and os.fstat(self.job).st_size:
                os.ftruncate(self.job, 0)
        except OSError:
            pass

    def _check_sources(self, job: Message) -> None:
        for origin, digest, known in job["stats"]:
            _still(origin, digest, known)

    def keep(self, job: Message, box: Box, ended: Ended, said: bytes) -> Message:
        """Keep outputs and log, append the trace, place the targets: always in this order. Raises FileChanged."""
        self._check_sources(job)
        outputs: dict[str, str] = {}
        with self.blobs.together():
            if job["text"]:
                self.blobs.put_bytes(job["text"])
            for name, place in job["outputs"].items():
                outputs[name] = self._keep_output(os.path.join(box.path, place.rstrip("/")), place.endswith("/"))
            log = self.blobs.put_bytes(said)
            loaded = self._loaded(job)
            figures = (ended.seconds, ended.peak, log, time.time())
            trace = Trace(job["action"], outputs, *figures, loaded, job["locks"])
            self.blobs.add_trace(trace, supersede=job["supersede"])
        placed = {
            place: known
            for name, place in job["outputs"].items()
            if place in job["targets"] and (known := self._place(job, box, place, outputs[name])) is not None
        }
        if job["checkpoint"]:
            shutil.rmtree(job["checkpoint"], ignore_errors=True)
        return {
            "ok": True,
            "outputs": outputs,
            "placed": placed,
            "seconds": ended.seconds,
            "peak": ended.peak,
            "log": log,
            "left": [],
            "learned": [],
            "loaded": loaded,
        }

    def _loaded(self, job: Message) -> Mapping[str, str]:
        """The distributions that a Python step imported and its environment does not name; all that there are if it
        ended in a way (os._exit) that did not let it tell."""
        if job["static"] is None:
            return {}
        try:
            with open(self.loaded, encoding="utf-8") as file:
                modules = file.read().split("\n")
        except FileNotFoundError:
            modules = None
        return self.versions(modules, job["static"])

    def _set_apart(self, job: Message, box: Box, ended: Ended) -> Message:
        """Move outputs and log to the job's own folder; nothing of them becomes a result."""
        outputs: dict[str, str] = {}
        for name, place in job["outputs"].items():
            path, to = (os.path.join(base, place.rstrip("/")) for base in (box.path, job["apart"]))
            outputs[name] = output_digest(path)
            os.makedirs(os.path.dirname(to), exist_ok=True)
            if os.path.islink(path):  # what it points to is not the step's to be moved
                shutil.copy(path, to)
            else:
                os.rename(path, to)
        Path(f"{job['apart']}.log").write_bytes(self.log_so_far())
        self.folders.discard(box)
        return {"ok": True, "outputs": outputs, "seconds": ended.seconds, "peak": ended.peak}

    def _keep_output(self, path: str, folder: bool) -> str:
        if folder:
            entries = scan_folder(path)
            for entry in entries:
                if entry.kind in "fx":
                    self.blobs.put_file(os.path.join(path, entry.path), entry.value)
            return self.blobs.put_bytes(render_manifest(entries)) + "/"
        kept = self.blobs.put_small(path)
        if kept is not None:
            return kept
        digest = output_digest(path)
        self.blobs.put_file(path, digest)
        return digest

    def _place(self, job: Message, box: Box, place: str, digest: str) -> Any:
        """Put an output in its target's place, unless somebody wrote there since the build looked."""
        target, expected = job["targets"][place]
        there = _stat(target)
        if there != expected:
            return None
        if is_folder(digest):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            return place_folder(self.blobs, digest, target, Path(job["aside"]) / place)
        source = os.path.join(box.path, place)
        if os.path.exists(source):
            return place_moved(source, target)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        return place_file(self.blobs, digest, target)

    def log_so_far(self) -> bytes:
        """What the step has printed; of a long log the beginning and the end."""
        size = os.fstat(self.log).st_size
        if size <= LOG_LIMIT:
            return os.pread(self.log, size, 0)
        half = LOG_LIMIT // 2
        return os.pread(self.log, half, 0) + b"\n[...]\n" + os.pread(self.log, half, size - half)

    def redact(self, secrets: list[str]) -> None:
        """Replace the values of secrets in the log, before anybody else sees it."""
        if not secrets:
            return
        log = self.base / "log"
        data = log.read_bytes()
        for secret in secrets:
            data = data.replace(os.fsencode(secret), b"[secret]")
        log.write_bytes(data)

    def _failure(self, job: Message, box: Box, why: str, facts: dict[str, Any]) -> Message:
        kept = job["failed"]
        self.folders.keep(box, kept + "/folder")
        shutil.copyfile(self.base / "log", kept + "/log")
        if job["step"] is not None:
            shutil.copyfile(self.base / STEP, f"{kept}/{STEP}")
        return {"ok": False, "why": why, "facts": facts, "kept": kept}


def _prepare_checkpoint(job: Message) -> None:
    """Make the folder that survives attempts of this action."""
    if job["anew"]:
        shutil.rmtree(job["checkpoint"], ignore_errors=True)
    os.makedirs(job["checkpoint"], exist_ok=True)


def expected(job: Message) -> set[str]:
    """The places of a step's inputs and outputs: what else lies in its folder was left there."""
    return {*(place for place, *_ in job["inputs"]), *job["outputs"].values()}


def told(error: LabmakeError) -> Message:
    """The answer to an error in three parts: the disk's if it is the store's."""
    facts = {name: str(fact) for name, fact in error.facts}
    why = "disk" if isinstance(error, StoreError) else "error"
    return {"ok": False, "why": why, "facts": facts, "what": error.what, "todo": list(error.todo)}


def disk(error: OSError) -> Message:
    """The answer when the disk did not take or give something."""
    facts = {"file": str(error.filename2 or error.filename or "?"), "reason": error.strerror or str(error)}
    todo = ["make room, or correct the permissions, and build again; what succeeded is kept"]
    return {"ok": False, "why": "disk", "what": "a file cannot be read or written", "facts": facts, "todo": todo}


def _still(origin: str, digest: str, known: Any) -> None:
    """Raise FileChanged if a file that a step saw as a link was written meanwhile."""
    if _stat(origin) != known and hash_file(origin)[0] != plain(digest):
        raise FileChanged(f"changed while a step read it: {origin}")


def _stat(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if stat.S_ISDIR(found.st_mode):
        return (-1, 0, 0)
    return (found.st_size, found.st_mtime_ns, found.st_ino)


def serve(
    base: Path, store: Path, environment: Mapping[str, str], versions: Versions, requests: int, answers: int
) -> None:
    """Serve requests until their pipe ends; what is being stored or placed then is finished."""
    jobs: deque[Message] = deque()
    unpacker = Unpacker()
    try:
        waiting = Waiting(requests, lambda piece: jobs.extend(unpacker.feed(piece)))
    except OSError as error:  # no more descriptors: the first step is told so, and this worker ends
        while not jobs and (piece := os.read(requests, CHUNK)):
            jobs.extend(unpacker.feed(piece))
        for job in [item for request in jobs for item in request["items"]]:
            _write(answers, packed({"id": job["id"], **disk(error)}))
        return
    worker = Worker(base, store, environment, versions, waiting)

    def is_stopped() -> bool:
        waiting.look()
        return bool(jobs)  # while something runs, nothing else is told

    try:
        while True:
            while not jobs:
                piece = os.read(requests, CHUNK)
                if not piece:
                    return
                jobs.extend(unpacker.feed(piece))
            job = jobs.popleft()
            if "stop" in job:  # what it was to stop has ended
                continue
            for answer in worker.answers(job, is_stopped):
                worker.end_note()
                _write(answers, packed(answer))
    except (Abandoned, BrokenPipeError):
        return
    finally:
        worker.close()


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]

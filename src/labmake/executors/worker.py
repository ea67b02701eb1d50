"""The worker: one program that runs steps, one at a time, told by messages on a pipe and answering on another.

It makes the step folder, starts the process, waits, hashes, stores, places and answers with one message; the
coordinator only plans and records. When the pipe ends, the coordinator is gone: the step is killed and the worker ends.

Request: {id, action, text, code, inputs: [[place, digest, location, origin]], stats: [[origin, digest, stat]],
outputs: {name: place}, targets: {place: [file system path, stat or null]}, command: [argv], step: LABMAKE_STEP's
content, lists: {name: [paths]}, env, cpus, gpus, seconds, secrets, supersede, failed, checkpoint and aside: folders,
anew: the checkpoint is emptied}. Answer:
{id, ok, outputs: {name: digest}, placed: {place: stat}, learned, seconds, peak, log, left} or {id, ok: false, why,
facts, kept}.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labmake.errors import LabmakeError, StoreError
from labmake.executors.process import Abandoned, Ended, Waiting, redirect, start
from labmake.executors.stepfolder import Box, StepFolders
from labmake.executors.wire import CHUNK, Message, Unpacker, packed
from labmake.model import Trace
from labmake.store.blobs import Blobs
from labmake.store.digest import FileChanged, hash_file, is_folder, output_digest, plain, render_manifest, scan_folder
from labmake.store.index import MemoryIndex
from labmake.store.place import place_file, place_folder, place_moved

LOG_LIMIT = 4 << 20
"""Bytes of a log that are kept with the trace: its beginning and its end."""

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


class Worker:
    """The state of one worker: its folder, its store, what all its steps share of the environment."""

    def __init__(self, base: Path, store: Path, environment: Mapping[str, str], waiting: Waiting) -> None:
        self.base, self.store = base, store
        self.log = self.job = -1
        self.scratch = str(base / "scratch")
        self.environment = {**environment, "TMPDIR": self.scratch, "GIT_CEILING_DIRECTORIES": str(base)}
        self.waiting = waiting

    def _prepare(self) -> None:
        """Make this worker's folder and open the store, before its first step: so a disk that refuses is an answer."""
        shutil.rmtree(self.base, ignore_errors=True)
        os.makedirs(self.scratch)
        self.blobs = Blobs(self.store, MemoryIndex(), follow=False)
        self.folders = StepFolders(self.base, self.blobs)
        self.log = os.open(self.base / "log", os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
        redirect(self.log)
        self.job = os.open(self.base / "job", os.O_CREAT | os.O_WRONLY, 0o644)

    def close(self) -> None:
        """Give back what others may wait for."""
        try:
            if self.job >= 0:
                self.blobs.close()
        except OSError:  # a lock whose process has ended is nobody's
            pass

    def run(self, job: Message) -> Message:
        """Run one step; every failure is an answer."""
        try:
            if self.job < 0:
                self._prepare()
            box = self.folders.open(job["code"], job["inputs"], job["outputs"].values())
        except FileChanged as error:
            return {"ok": False, "why": "changed", "facts": {"file": str(error)}}
        except OSError as error:
            return _disk(error)
        except LabmakeError as error:
            return _told(error)
        try:
            return self._run(job, box)
        except FileChanged as error:
            self.folders.discard(box)
            return {"ok": False, "why": "changed", "facts": {"file": str(error)}}
        except LabmakeError as error:
            self.folders.keep(box, job["failed"] + "/folder")
            return _told(error)
        except OSError as error:
            self.folders.discard(box)
            return _disk(error)

    def _run(self, job: Message, box: Box) -> Message:
        ended = self._process(job, box)
        self._redact(job["secrets"])
        if ended.status != 0 or ended.timed_out:
            facts = {"status": ended.status, "seconds": ended.seconds, "peak": ended.peak}
            return self._failure(job, box, "time" if ended.timed_out else "exit", facts)
        missing = self._missing(job, box)
        if missing:
            return self._failure(job, box, "output", missing)
        for origin, digest, known in job["stats"]:
            _still(origin, digest, known)
        return self._store(job, box, ended)

    def _process(self, job: Message, box: Box) -> Ended:
        """Start the step in its folder and wait for it."""
        self._fresh_scratch()
        cpus = dict.fromkeys(THREADS, str(job["cpus"]))
        env = {**self.environment, **cpus, "CUDA_VISIBLE_DEVICES": ",".join(job["gpus"]), **job["env"]}
        if job["checkpoint"]:
            env["LABMAKE_CHECKPOINT"] = _checkpoint(job)
        if job["step"] is not None:
            step = self.base / "step.json"
            step.write_text(json.dumps({**job["step"], "scratch": self.scratch}))
            env["LABMAKE_STEP"] = str(step)
        for name, paths in job["lists"].items():
            with open(os.path.join(self.scratch, f"{name}.list"), "w", encoding="utf-8") as file:
                file.writelines(f"{path}\n" for path in paths)
        command = [word.replace("\0scratch", self.scratch) for word in job["command"]]
        os.chdir(box.path)
        if os.fstat(self.log).st_size:
            os.ftruncate(self.log, 0)
        try:
            pid = start(command, env)
        except OSError as error:
            os.write(self.log, f"labmake: cannot start {command[0]}: {error.strerror}\n".encode())
            return Ended(127, 0.0, 0, False)
        try:
            return self.waiting.wait(pid, job["seconds"], lambda: self._note(job))
        finally:
            os.chdir(self.base)

    def _fresh_scratch(self) -> None:
        try:
            if not os.listdir(self.scratch):
                return
        except OSError:
            pass
        shutil.rmtree(self.scratch, ignore_errors=True)
        os.mkdir(self.scratch)

    def _note(self, job: Message) -> None:
        """Say in the file `job` whose log lies beside it, for `labmake logs -f`; empty when no step runs."""
        told = {key: job[key] for key in ("id", "action", "failed", "targets")} | {"secret": bool(job["secrets"])}
        try:
            os.pwrite(self.job, json.dumps(told).encode(), 0)
        except OSError:  # nobody's result depends on it
            pass

    def end_note(self) -> None:
        """Say that no step runs."""
        try:
            if self.job >= 0 and os.fstat(self.job).st_size:
                os.ftruncate(self.job, 0)
        except OSError:
            pass

    def _missing(self, job: Message, box: Box) -> dict[str, Any] | None:
        """What is wrong with the outputs, if anything: not there, or a file where a folder should be."""
        for name, place in job["outputs"].items():
            try:
                mode = os.lstat(os.path.join(box.path, place.rstrip("/"))).st_mode
            except OSError:
                mode = 0
            if stat.S_ISDIR(mode) if place.endswith("/") else mode and not (stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
                continue
            expected = {p for p, *_ in job["inputs"]} | set(box.code)
            found = [p for p in _files(box.path) if p not in expected]
            there = "a folder" if stat.S_ISDIR(mode) else "a link" if stat.S_ISLNK(mode) else ""
            return {"output": name, "place": place, "there": there, "wrote": found[:8]}
        return None

    def _store(self, job: Message, box: Box, ended: Ended) -> Message:
        """Keep outputs and log, append the trace, place the targets: always in this order."""
        outputs: dict[str, str] = {}
        with self.blobs.together():
            if job["text"]:
                self.blobs.put_bytes(job["text"])
            for name, place in job["outputs"].items():
                outputs[name] = self._keep_output(os.path.join(box.path, place.rstrip("/")), place.endswith("/"))
            log = self.blobs.put_bytes(self._log())
            trace = Trace(job["action"], outputs, ended.seconds, ended.peak, log, time.time())
            self.blobs.add_trace(trace, supersede=job["supersede"])
        placed = {
            place: known
            for name, place in job["outputs"].items()
            if place in job["targets"] and (known := self._place(job, box, place, outputs[name])) is not None
        }
        if job["checkpoint"]:
            shutil.rmtree(job["checkpoint"], ignore_errors=True)
        expected = {place for place, *_ in job["inputs"]}
        expected.update(job["outputs"].values())
        return {
            "ok": True,
            "outputs": outputs,
            "placed": placed,
            "seconds": ended.seconds,
            "peak": ended.peak,
            "log": log,
            "left": self.folders.close(box, expected),
            "learned": self.blobs.take_learned(),
        }

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

    def _log(self) -> bytes:
        size = os.fstat(self.log).st_size
        if size <= LOG_LIMIT:
            return os.pread(self.log, size, 0)
        half = LOG_LIMIT // 2
        return os.pread(self.log, half, 0) + b"\n[...]\n" + os.pread(self.log, half, size - half)

    def _redact(self, secrets: list[str]) -> None:
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
            shutil.copyfile(self.base / "step.json", kept + "/step.json")
        return {"ok": False, "why": why, "facts": facts, "kept": kept}


def _checkpoint(job: Message) -> str:
    """The folder that survives attempts of this action."""
    folder: str = job["checkpoint"]
    if job["anew"]:
        shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, exist_ok=True)
    return folder


def _told(error: LabmakeError) -> Message:
    """The answer to an error in three parts: the disk's if it is the store's."""
    facts = {name: str(fact) for name, fact in error.facts}
    why = "disk" if isinstance(error, StoreError) else "error"
    return {"ok": False, "why": why, "facts": facts, "what": error.what, "todo": list(error.todo)}


def _disk(error: OSError) -> Message:
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


def _files(folder: str) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(base, name), folder) for base, _, names in os.walk(folder) for name in names
    )


def serve(base: Path, store: Path, environment: Mapping[str, str], requests: int, answers: int) -> None:
    """Serve requests until their pipe ends; what is being stored or placed then is finished."""
    jobs: deque[Message] = deque()
    unpacker = Unpacker()
    try:
        waiting = Waiting(requests, lambda piece: jobs.extend(unpacker.feed(piece)))
    except OSError as error:  # no more descriptors: the first step is told so, and this worker ends
        while not jobs and (piece := os.read(requests, CHUNK)):
            jobs.extend(unpacker.feed(piece))
        for job in jobs:
            _write(answers, packed({"id": job["id"], **_disk(error)}))
        return
    worker = Worker(base, store, environment, waiting)
    try:
        while True:
            while not jobs:
                piece = os.read(requests, CHUNK)
                if not piece:
                    return
                jobs.extend(unpacker.feed(piece))
            job = jobs.popleft()
            answer = worker.run(job)
            worker.end_note()
            _write(answers, packed({"id": job["id"], **answer}))
    except (Abandoned, BrokenPipeError):
        return
    finally:
        worker.close()


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]

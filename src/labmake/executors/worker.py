"""The worker: one program that runs steps, one at a time, told by lines of JSON on stdin and answering on stdout.

It makes the step folder, starts the process, waits, hashes, stores, places and answers with one line; the coordinator
only plans and records. When stdin ends, the coordinator is gone: the step is killed and the worker ends.

Request: {id, action, code, inputs: [[place, digest, location, origin]], outputs: {name: place}, targets: {place: [file
system path, stat or null]}, command: [argv] | shell text, step: LABMAKE_STEP's content, lists: {name: [paths]}, env,
seconds, failed: folder}. Answer: {id, ok, outputs: {name: digest}, placed: {place: stat}, learned, seconds, peak, log,
left} or {id, ok: false, why, facts, log, kept}.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from labmake.errors import LabmakeError
from labmake.executors.stepfolder import Box, StepFolders
from labmake.model import Trace
from labmake.store.blobs import Blobs
from labmake.store.digest import FileChanged, hash_file, is_folder, output_digest, plain, render_manifest, scan_folder
from labmake.store.index import MemoryIndex
from labmake.store.place import place_file, place_folder, place_moved

GRACE = 5.0
"""Seconds between the polite signal and SIGKILL when a step exceeds its time."""

LOG_LIMIT = 4 << 20
"""Bytes of a log that are kept with the trace: its beginning and its end."""


class Worker:
    """The state of one worker: its folder, its store, the step that runs."""

    def __init__(self, base: Path, store: Path) -> None:
        self.base = base
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
        self.blobs = Blobs(store, MemoryIndex(), follow=False)
        self.folders = StepFolders(base, self.blobs)
        self.log = str(base / "log")
        self.job = os.open(base / "job", os.O_CREAT | os.O_WRONLY, 0o644)
        self.scratch = base / "scratch"
        self.group = 0
        self.timed_out = False
        self.ending = False
        """Whether the coordinator is gone."""

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run one step; every failure is an answer."""
        try:
            box = self.folders.open(job["code"], job["inputs"], job["outputs"].values())
        except FileChanged as error:
            return {"ok": False, "why": "changed", "facts": {"file": str(error)}}
        except OSError as error:
            return _disk(error)
        try:
            return self._run(job, box)
        except FileChanged as error:
            self.folders.discard(box)
            return {"ok": False, "why": "changed", "facts": {"file": str(error)}}
        except LabmakeError as error:
            self.folders.keep(box, job["failed"] + "/folder")
            return {"ok": False, "why": "error", "facts": dict(error.facts), "what": error.what, "todo": error.todo}
        except OSError as error:
            self.folders.discard(box)
            return _disk(error)

    def _run(self, job: dict[str, Any], box: Box) -> dict[str, Any]:
        status, seconds, peak = self._process(job, box)
        self._redact(job["secrets"])
        if status != 0 or self.timed_out:
            why = "time" if self.timed_out else "exit"
            return self._failure(job, box, why, {"status": status, "seconds": seconds, "peak": peak})
        missing = self._missing(job, box)
        if missing:
            return self._failure(job, box, "output", missing)
        for origin, digest, known in job["stats"]:
            _still(origin, digest, known)
        return self._store(job, box, seconds, peak)

    def _process(self, job: dict[str, Any], box: Box) -> tuple[int, float, int]:
        """Start the step in its folder and wait for it: exit status (negative: signal), seconds, peak bytes."""
        if not self.scratch.is_dir() or os.listdir(self.scratch):
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.scratch.mkdir()
        env = {**job["env"], "TMPDIR": str(self.scratch)}
        if job["step"] is not None:
            step = self.base / "step.json"
            step.write_text(json.dumps({**job["step"], "scratch": str(self.scratch)}))
            env["LABMAKE_STEP"] = str(step)
        for name, paths in job["lists"].items():
            (self.scratch / f"{name}.list").write_text("".join(f"{path}\n" for path in paths))
        command = [word.replace("\0scratch", str(self.scratch)) for word in job["command"]]
        env["GIT_CEILING_DIRECTORIES"] = str(self.base)
        os.chdir(box.path)
        self.timed_out = False
        log = os.open(self.log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND, 0o644)
        self.note({key: job[key] for key in ("id", "action", "failed", "targets")} | {"secret": bool(job["secrets"])})
        start = time.monotonic()
        try:
            pid = _spawn(command, env, log)
        except OSError as error:
            os.write(log, f"labmake: cannot start {command[0]}: {error.strerror}\n".encode())
            return 127, 0.0, 0
        finally:
            os.close(log)
            os.chdir(self.base)
        self.group = pid
        if self.ending:
            _kill(pid, signal.SIGKILL)
        watch = threading.Timer(job["seconds"], self._expire, [pid]) if job["seconds"] else None
        if watch is not None:
            watch.start()
        _, status, usage = os.wait4(pid, 0)
        seconds = time.monotonic() - start
        if self.ending:
            os._exit(0)  # nobody waits for this step; what is being stored or placed, on the other hand, is finished
        self.group = 0
        if watch is not None:
            watch.cancel()
        _kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def note(self, job: dict[str, Any] | None) -> None:
        """Say in the file `job` whose log lies beside it, for `labmake logs -f`; empty when no step runs."""
        os.ftruncate(self.job, 0)
        if job is not None:
            os.pwrite(self.job, json.dumps(job).encode(), 0)

    def _expire(self, pid: int) -> None:
        self.timed_out = True
        _kill(pid, signal.SIGTERM)
        time.sleep(GRACE)
        if self.group == pid:
            _kill(pid, signal.SIGKILL)

    def _missing(self, job: dict[str, Any], box: Box) -> dict[str, Any] | None:
        """What is wrong with the outputs, if anything: not there, or a file where a folder should be."""
        for name, place in job["outputs"].items():
            path = os.path.join(box.path, place.rstrip("/"))
            folder = place.endswith("/")
            if os.path.islink(path) or (os.path.isdir(path) != folder) or not os.path.exists(path):
                expected = {p for p, *_ in job["inputs"]} | set(box.code)
                found = [p for p in _files(box.path) if p not in expected]
                there = "a folder" if os.path.isdir(path) else "a link" if os.path.islink(path) else ""
                return {"output": name, "place": place, "there": there, "wrote": found[:8]}
        return None

    def _store(self, job: dict[str, Any], box: Box, seconds: float, peak: int) -> dict[str, Any]:
        """Keep outputs and log, append the trace, place the targets: always in this order."""
        outputs: dict[str, str] = {}
        for name, place in job["outputs"].items():
            outputs[name] = self._keep_output(os.path.join(box.path, place.rstrip("/")), place.endswith("/"))
        log = self.blobs.put_bytes(self._log())
        trace = Trace(job["action"], outputs, seconds, peak, log, time.time())
        self.blobs.add_trace(trace, supersede=job["supersede"])
        placed = {
            place: stat
            for name, place in job["outputs"].items()
            if place in job["targets"] and (stat := self._place(job, box, place, outputs[name])) is not None
        }
        expected = {place for place, *_ in job["inputs"]} | set(job["outputs"].values())
        left = self.folders.close(box, expected)
        return {
            "ok": True,
            "outputs": outputs,
            "placed": placed,
            "seconds": seconds,
            "peak": peak,
            "log": log,
            "left": left,
            "learned": self.blobs.take_learned(),
        }

    def _keep_output(self, path: str, folder: bool) -> str:
        if folder:
            entries = scan_folder(path)
            for entry in entries:
                if entry.kind in "fx":
                    self.blobs.put_file(os.path.join(path, entry.path), entry.value)
            return self.blobs.put_bytes(render_manifest(entries)) + "/"
        digest = output_digest(path)
        self.blobs.put_file(path, digest)
        return digest

    def _place(self, job: dict[str, Any], box: Box, place: str, digest: str) -> Any:
        """Put an output in its target's place, unless somebody wrote there since the build looked."""
        target, expected = job["targets"][place]
        if _stat(target) != expected:
            return None
        if not os.path.isdir(os.path.dirname(target)):
            os.makedirs(os.path.dirname(target), exist_ok=True)
        if is_folder(digest):
            return place_folder(self.blobs, digest, target, Path(job["aside"]) / place)
        source = os.path.join(box.path, place)
        if os.path.exists(source):
            return place_moved(source, target)
        return place_file(self.blobs, digest, target)

    def _log(self) -> bytes:
        with open(self.log, "rb") as file:
            data = file.read(LOG_LIMIT + 1)
            if len(data) <= LOG_LIMIT:
                return data
            file.seek(-LOG_LIMIT // 2, os.SEEK_END)
            return data[: LOG_LIMIT // 2] + b"\n[...]\n" + file.read()

    def _redact(self, secrets: list[str]) -> None:
        """Replace the values of secrets in the log, before anybody else sees it."""
        if not secrets:
            return
        log = Path(self.log)
        data = log.read_bytes()
        for secret in secrets:
            data = data.replace(os.fsencode(secret), b"[secret]")
        log.write_bytes(data)

    def _failure(self, job: dict[str, Any], box: Box, why: str, facts: dict[str, Any]) -> dict[str, Any]:
        kept = job["failed"]
        self.folders.keep(box, kept + "/folder")
        shutil.copyfile(self.log, kept + "/log")
        if job["step"] is not None:
            shutil.copyfile(self.base / "step.json", kept + "/step.json")
        return {"ok": False, "why": why, "facts": facts, "kept": kept}


def _disk(error: OSError) -> dict[str, Any]:
    """The answer when the disk did not take or give something."""
    facts = {"file": str(error.filename2 or error.filename or "?"), "reason": error.strerror or str(error)}
    todo = ["make room, or correct the permissions, and build again; what succeeded is kept"]
    return {"ok": False, "why": "disk", "what": "a file cannot be read or written", "facts": facts, "todo": todo}


def _still(origin: str, digest: str, known: Any) -> None:
    """Raise FileChanged if a file that a step saw as a link was written meanwhile."""
    if _stat(origin) != known and hash_file(origin)[0] != plain(digest):
        raise FileChanged(f"changed while a step read it: {origin}")


def _spawn(command: list[str], env: dict[str, str], log: int) -> int:
    """Start a process in its own session, stdin empty, both outputs to the log."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
    ]
    path = _program(command[0], env.get("PATH", ""))
    default = [signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP]
    try:
        return os.posix_spawn(path, command, env, file_actions=actions, setsid=True, setsigdef=default)
    except NotImplementedError:  # a C library without POSIX_SPAWN_SETSID: a process group can be killed as well
        return os.posix_spawn(path, command, env, file_actions=actions, setpgroup=0, setsigdef=default)


@lru_cache(maxsize=64)
def _program(name: str, path: str) -> str:
    """Where a program lies, as a shell would find it."""
    return name if os.sep in name else shutil.which(name, path=path) or name


def _kill(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass


def _stat(path: str) -> list[int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if os.path.isdir(path) and not os.path.islink(path):
        return [-1, 0, 0]
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _files(folder: str) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(base, name), folder) for base, _, names in os.walk(folder) for name in names
    )


def main() -> None:
    """Serve requests until stdin ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    worker = Worker(Path(sys.argv[1]), Path(sys.argv[2]))
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            requests.put(line)
        worker.ending = True
        if worker.group:
            _kill(worker.group, signal.SIGKILL)
        requests.put("")

    threading.Thread(target=listen, daemon=True).start()
    while line := requests.get():
        job = json.loads(line)
        answer = worker.run(job)
        worker.note(None)
        if worker.ending:
            return
        try:
            sys.stdout.write(json.dumps({"id": job["id"], **answer}) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:  # the coordinator was killed a moment ago
            os._exit(0)


if __name__ == "__main__":
    main()

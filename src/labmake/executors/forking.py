"""Fork servers as a worker has them: which step may be forked, from which server, and what became of it.

Decision: each worker has servers of its own. A server waits for one child at a time and is asked in one message; what
a step does to its parent concerns the steps of one slot. Rejected: one for all slots, which saves memory and the import
in each slot (docs/design/workers.md), but has to hand descriptors over sockets, forks for all in turn, and takes the
running steps of all slots with it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from labmake.executors.preload import Import, certain_imports
from labmake.executors.process import PYSTEP, start, stop
from labmake.executors.stepfolder import Box
from labmake.executors.wire import CHUNK, Message, Unpacker, packed

FORKS = sys.platform == "linux"
"""Whether steps are forked at all: on macOS a fork that goes on without exec is unsafe for Apple's own libraries."""

KEPT = 4
"""How many servers a worker keeps for its next steps."""

REMEMBERED = 256
"""How many code states' imports, and unfit servers, a worker remembers."""

OWN = ("LABMAKE_SEED", "LABMAKE_CHECKPOINT", "LABMAKE_STEP")
"""The variables that differ from step to step; a child sets them."""

Code = tuple[tuple[str, str], ...]
Key = tuple[Any, ...]


class Unfit(Exception):
    """A child of the server would differ from a fresh interpreter: the step has not begun, and is to start afresh."""


@dataclass
class Gone(Exception):
    """The server has ended, by the status given, while a step ran; the step was killed."""

    status: int


@dataclass
class Server:
    """A fork server: its process, the pipes to and from it, the names of modules that it looked for (None: not told
    yet), and the child that runs (0: none that is known)."""

    key: Key
    pid: int
    requests: int
    answers: int
    names: frozenset[str] | None = None
    child: int = 0
    unpacker: Unpacker = field(default_factory=Unpacker)

    def ask(self, message: Message) -> None:
        """Send a message; a server that has gone is noticed by who waits for the answer."""
        data = packed(message)
        try:
            while data:
                data = data[os.write(self.requests, data) :]
        except BrokenPipeError:
            pass

    def close(self) -> int:
        """End it, and the step that it still has; its status as `os.wait4` gives it."""
        stop(self.pid, signal.SIGKILL)
        # A child that has not told its number still does so: it keeps the pipe open until then.
        while piece := _read(self.answers):
            for answer in self.unpacker.feed(piece):
                self.child = answer.get("pid", self.child)
        if self.child:
            stop(self.child, signal.SIGKILL)
        os.close(self.requests)
        os.close(self.answers)
        return os.waitpid(self.pid, 0)[1]


@dataclass
class Forked:
    """A step in a child of a server, or about to be: see process.Process."""

    server: Server
    servers: Servers

    @property
    def group(self) -> int:
        return self.server.child or self.server.pid

    @property
    def news(self) -> int:
        return self.server.answers

    def ended(self) -> tuple[int, int] | None:
        """As of every process. Raises Unfit and Gone."""
        server = self.server
        os.set_blocking(server.answers, False)
        try:
            piece = os.read(server.answers, CHUNK)
        except BlockingIOError:
            # A step may have stopped its parent (SIGCHLD tells of that too), who could then not tell of the step's end.
            os.kill(server.pid, signal.SIGCONT)
            return None
        finally:
            os.set_blocking(server.answers, True)
        for answer in list(server.unpacker.feed(piece)):
            if "names" in answer:
                server.names = frozenset(answer["names"])
            elif "pid" in answer:
                server.child = answer["pid"]
            elif "unfit" in answer:
                self.servers.refuse(server)
                raise Unfit(answer["unfit"])
            else:
                server.child = 0
                return answer["status"], answer["peak"]
        if piece:
            return None
        if server.names is None:
            self.servers.refuse(server)
            raise Unfit("its imports ended it")
        raise Gone(os.waitstatus_to_exitcode(self.servers.drop(server)))

    def end(self) -> None:
        self.servers.drop(self.server)


@dataclass
class Servers:
    """The fork servers of one worker, the last used at the end."""

    scratch: str
    kept: dict[Key, Server] = field(default_factory=dict)
    unfit: set[Key] = field(default_factory=set)
    imports: dict[tuple[Code, str, str], tuple[tuple[Import, ...], frozenset[str]]] = field(default_factory=dict)

    def start(self, job: Message, box: Box, environment: Mapping[str, str]) -> Forked | None:
        """Have a step run in a fork, in its folder, which is the working directory; None if it has to start afresh.

        The first step of a server waits for its imports, as it would in an interpreter of its own.
        Raises OSError if no process can be started.
        """
        if not is_forkable(job, environment):
            return None
        recipe = job["step"]["recipe"]
        code: Code = tuple([(place, digest) for place, digest, *_ in job["code"]])
        known = self.imports.get((code, recipe["file"], recipe["function"]))
        if known is None:
            if len(self.imports) >= REMEMBERED:
                self.imports.clear()
            found = certain_imports(box.path, recipe["file"], recipe["function"])
            known = found, frozenset(_modules(recipe["file"], [place for place, _ in code]))
            self.imports[code, recipe["file"], recipe["function"]] = known
        imports, names = known
        shared = {name: value for name, value in environment.items() if name not in OWN}
        key = (recipe["kind"], imports, tuple(_at_root(job)), frozenset(shared.items()))
        if key in self.unfit:
            return None
        server = self.kept.pop(key, None) or self._begin(key, job, shared)
        self.kept[key] = server
        inputs = _modules(recipe["file"], [place for place, *_ in job["inputs"]])
        if server.names is not None and (not server.names.isdisjoint(names) or not server.names.isdisjoint(inputs)):
            return None  # a module of this step's project would have been found instead
        server.ask({"cwd": box.path, "env": {name: environment[name] for name in OWN if name in environment}})
        return Forked(server, self)

    def _begin(self, key: Key, job: Message, environment: Mapping[str, str]) -> Server:
        requests, to_server = os.pipe()
        from_server, answers = os.pipe()
        try:
            for descriptor in (requests, answers):
                os.set_inheritable(descriptor, True)
            pid = start(PYSTEP, {**environment, "LABMAKE_SERVE": f"{requests},{answers}"})
        except OSError:
            os.close(to_server)
            os.close(from_server)
            raise
        finally:
            os.close(requests)
            os.close(answers)
        server = Server(key, pid, to_server, from_server)
        recipe, project = job["step"]["recipe"], job["step"]["project"]
        told = {"file": recipe["file"], "kind": recipe["kind"], "project": project, "scratch": self.scratch}
        server.ask({**told, "imports": [[module, list(names)] for module, names in key[1]]})
        while len(self.kept) >= KEPT:
            self.drop(next(iter(self.kept.values())))
        return server

    def drop(self, server: Server) -> int:
        """End a server; its status as `os.wait4` gives it."""
        self.kept.pop(server.key, None)
        return server.close()

    def refuse(self, server: Server) -> None:
        """End a server, and have steps like those it was for start afresh."""
        if len(self.unfit) >= REMEMBERED:
            self.unfit.clear()
        self.unfit.add(server.key)
        self.drop(server)

    def close(self) -> None:
        """End all servers."""
        for server in list(self.kept.values()):
            self.drop(server)


def is_forkable(job: Message, environment: Mapping[str, str]) -> bool:
    """Whether a step may be forked: the one place that decides.

    Not where it has an interpreter or program of its own around it (`wrap`), a GPU, whose libraries do not survive a
    fork, secrets, which no server shall know, or a path that depends on the folder in which the interpreter starts.
    """
    if not FORKS or job["command"] != PYSTEP or job["gpus"] or set(job["env"]) - set(OWN):
        return False
    return all(map(os.path.isabs, filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))))


def _at_root(job: Message) -> Iterator[tuple[str, str]]:
    """The files at the root of the step folder that are no modules: some packages look there for settings when they
    are imported (matplotlibrc, .numba_config.yaml)."""
    for place, digest, *_ in (*job["code"], *job["inputs"]):
        if "/" not in place and digest and not place.endswith(".py"):
            yield place, digest


def _modules(file: str, places: list[str]) -> set[str]:
    """The names under which files can be imported from the folders of a step's path."""
    folders = (os.path.dirname(file), "src", "")
    found = set()
    for place in places:
        if place.endswith((".py", ".so", ".pyc")):
            folder, name = os.path.split(place)
            if name.startswith("__init__."):
                folder, name = os.path.split(folder)
            if folder in folders:
                found.add(name.partition(".")[0])
    return found


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK)
    except OSError:
        return b""

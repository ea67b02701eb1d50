"""What the engine works with: the project, its rules, its store and state, and how the build is told about."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from labmake.engine.plan import Answer, Result
from labmake.engine.rulebook import Rulebook
from labmake.engine.settings import Settings
from labmake.environment.code_files import Closure, CodeReader
from labmake.environment.environments import Environment, Environments
from labmake.errors import LabmakeError
from labmake.frozen import frozen
from labmake.layout import Project
from labmake.model import Action, Digest, Key
from labmake.seams import Clock
from labmake.store.blobs import Blobs
from labmake.store.digest import Entry
from labmake.store.state import State
from labmake.store.stats import StatCache


class Reporter(Protocol):
    """Is told what a build does. Every method gets the node: the project path of the first target."""

    def planned(self, waiting: int, running: int) -> None:
        """How many steps wait for resources, and how many run."""
        ...

    def started(self, node: str, why: str) -> None: ...

    def finished(self, node: str, seconds: float, notes: list[str], peak: int) -> None:
        """A step has succeeded; `notes` are the files that it left beside its outputs, `peak` is in bytes."""
        ...

    def restored(self, node: str) -> None: ...

    def failed(self, node: str, error: LabmakeError) -> None: ...

    def note(self, text: str) -> None:
        """Anything else; may be called in a signal's handler."""
        ...


class Silent:
    """A reporter that says nothing."""

    def planned(self, waiting: int, running: int) -> None: ...

    def started(self, node: str, why: str) -> None: ...

    def finished(self, node: str, seconds: float, notes: list[str], peak: int) -> None: ...

    def restored(self, node: str) -> None: ...

    def failed(self, node: str, error: LabmakeError) -> None: ...

    def note(self, text: str) -> None: ...


@frozen
class Options:
    """How to build: `jobs` steps at once, `dry` decides and runs nothing, `force` reruns these nodes' own steps,
    `discard_edits` gives up edited outputs (they are set aside), `fail_fast` stops at the first failure, `settings` are
    put over the resources that rules ask for, `recall` answers for a node, given its match, from what the store
    remembers, whatever lies in the worktree."""

    jobs: int = 1
    dry: bool = False
    force: frozenset[str] = frozenset()
    discard_edits: bool = False
    fail_fast: bool = False
    settings: Settings = field(default_factory=Settings)
    recall: Callable[[Services, Any], Generator[Any, Any, Any]] | None = None


@dataclass
class Services:
    """The engine's rooms, opened for one command."""

    project: Project
    state: State
    blobs: Blobs
    stats: StatCache
    code: CodeReader
    rulebook: Rulebook
    environments: Environments
    clock: Clock
    reporter: Reporter = field(default_factory=Silent)
    slices: dict[Digest, dict[str, bytes]] = field(default_factory=dict)
    """The elements of files that were cut into slices, by the file's digest."""
    actions: dict[str, Action] = field(default_factory=dict)
    """The actions decided in this build, by node."""
    answers: dict[Key, Result] = field(default_factory=dict)
    """What is known of every key that was asked for in this build."""
    ran: dict[Digest, dict[str, Any]] = field(default_factory=dict)
    """The actions that ran in this build, with the worker's answer if one failed: no action runs twice in one."""

    undecided: set[str] = field(default_factory=set)
    """Nodes that may still ask for anything; kept only if there are temporary targets."""
    closures: dict[Key, Closure] = field(default_factory=dict)
    """The code that was asked for in this build, by its question."""
    surroundings: dict[str, Environment] = field(default_factory=dict)
    """The environments that were asked for in this build, by their questions."""
    snapshots: dict[tuple[tuple[str, Digest], ...], Digest] = field(default_factory=dict)
    """The lists of code files that were kept in this build."""
    folders: set[str] = field(default_factory=set)
    """Project paths of folders above targets that were seen to be folders, or not to be there."""
    manifests: dict[Digest, dict[str, Entry]] = field(default_factory=dict)
    """The entries of folders of which a file was asked for, by path."""
    began: int = 0
    """The file system's clock when the command began, in nanoseconds."""
    looked: set[str] = field(default_factory=set)
    """Absolute paths of files and folders that were looked at to read rules and to answer questions."""
    variables: dict[str, str | None] = field(default_factory=dict)
    """The environment variables that were asked for."""

    def known(self, key: Key) -> Result | None:
        """The answer to a key, if there is one already."""
        return self.answers.get(key)

    def sources_changed(self, paths: list[str]) -> None:
        """Forget what is known of these files (absolute paths): they were written while a step read them."""
        for path in paths:
            self.stats.forget(path)
        gone = [key for key, answer in self.answers.items() if isinstance(answer, Answer) and answer.origin in paths]
        for key in gone:
            del self.answers[key]

    def absolute(self, path: str) -> str:
        return self.project.absolute(path)

    def keep(self, data: bytes) -> Digest:
        """Store a blob."""
        return self.blobs.put_bytes(data)

    @property
    def aside(self) -> Path:
        """Where files go that a user edited and then gave up, or that lay in a folder target."""
        return self.project.state / "aside"

"""What a target was in one state of the project: the digest that traces tell, and the files it depends on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from labmake.engine.build import Build
from labmake.engine.nodes import Made
from labmake.engine.plan import Answer, Failed, Result
from labmake.engine.recall import Recall
from labmake.engine.services import Options, Services
from labmake.engine.watched import looked_at
from labmake.environment.code_tree import NEVER
from labmake.errors import LabmakeError, NoRule, NoSuchKey, StoreError
from labmake.experiments.history import Changes
from labmake.frozen import frozen
from labmake.layout import experiment_of, generated_folder, script_folder, short
from labmake.loading import rule_file
from labmake.model import Digest

ALWAYS = frozenset(
    """.gitattributes pyproject.toml flake.lock poetry.lock uv.lock pdm.lock Pipfile.lock pixi.lock conda-lock.yml
    environment.yml renv.lock Manifest.toml""".split()
)
"""Names of files that say which software is meant, or how git writes files: results depend on them in any case."""

ABSENT = ""
"""In place of a digest: there is no such target."""


@frozen
class State:
    """A target in one state of the project. `commit` is a hash, "" for the worktree; `digest` is ABSENT where there is
    no such target and None where it is not known, for the reason `why` (`broken`: it could not be decided at all).

    `watched` are the project paths on which all this depends, `above` the folders that hold them; `services` and `made`
    are what was decided, by node.
    """

    commit: str
    target: str
    digest: Digest | None
    why: str
    broken: bool
    watched: frozenset[str]
    above: frozenset[str]
    services: Services
    made: Mapping[str, Made]
    software: Mapping[str, str]
    """By node, the software with which it was made."""

    @property
    def experiment(self) -> str:
        return experiment_of(self.target) or ""

    def text(self, node: str) -> str:
        """The text of the action that made a node; "" if none did (a source)."""
        action = self.services.actions.get(node)
        return action.text if action is not None else ""

    def is_decided_as(self, other: State) -> bool:
        """Whether all that the target is made of is made by the same actions."""
        mine, theirs = ({made.fact.action for made in one.made.values()} for one in (self, other))
        return mine == theirs


def recall_state(services: Services, commit: str, target: str, recall: Recall) -> State:
    """Decide a target in the state of the project that `services` were opened for."""
    build = Build(services, Options(dry=True, recall=recall), _nothing_runs)
    (result,) = build.bring([target])
    digest, why, broken = _meaning(services, build, target, result)
    made = dict(build.outcome.made)
    experiment = experiment_of(target) or ""
    folders = {script_folder(experiment), rule_file(experiment)} - {""}
    watched = frozenset(_inside(str(services.project.root), looked_at(services, build))) | folders
    above = frozenset({path[:at] for path in watched for at, letter in enumerate(path) if letter == "/"})
    return State(commit, target, digest, why, broken, watched, above, services, made, recall.software)


def _nothing_runs() -> NoReturn:
    raise AssertionError("a dry build runs nothing")


def _meaning(services: Services, build: Build, target: str, result: Result) -> tuple[Digest | None, str, bool]:
    if isinstance(result, Answer):
        return result.digest, "", False
    if isinstance(result, Failed):
        missing = isinstance(result.error, (NoRule, NoSuchKey))
        if missing and result.root in (target, target.rstrip("/"), _node(services, target)):
            return ABSENT, result.error.what, False
        if isinstance(result.error, StoreError):
            return None, result.error.what, False
        where = f" ({result.error.where})" if result.error.where else ""
        return None, f"{result.error.what}{where}", True
    experiment = experiment_of(target) or ""
    reasons = [f"{short(node, experiment)}: {would.why}" for node, would in build.outcome.would.items()]
    return None, reasons[0] if reasons else "a result that it needs is not known", False


def _node(services: Services, target: str) -> str:
    try:
        return services.rulebook.find(target).node
    except LabmakeError:
        return target


def _inside(root: str, paths: Iterable[str]) -> Iterator[str]:
    """Those paths that lie in the project, from its root, and what they are links to; "" is the root itself."""
    base, folders = os.path.realpath(root), dict[str, str]()
    for path in paths:
        folder, _, name = path.rstrip("/").rpartition("/")
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        real = os.path.realpath(path) if os.path.islink(path) else os.path.join(folders[folder], name)
        for one in {path.rstrip("/"), real}:
            for start in {base, root}:
                if one == start:
                    yield ""
                elif one.startswith(start + os.sep):
                    yield one[len(start) + 1 :]


def touches(state: State, changes: Changes, existed: Callable[[str], bool]) -> bool:
    """Whether changed files are among those on which a state depends. A file that came or went also changes what its
    folder lists, and a folder that came or went with it (`existed` says which did not) what the one above lists. A file
    in a folder's place is a link, or a repository of its own."""
    for status, path in changes:
        folder, _, name = path.rpartition("/")
        if path in state.watched or path in state.above or name in ALWAYS or _is_requirements(name):
            return True
        while status in "AD":
            if folder in state.watched:
                return True
            if not folder or existed(folder):
                break
            folder = folder.rpartition("/")[0]
    return False


def locks_differ(changes: Changes) -> bool:
    """Whether files that say which software is meant are among those that changed."""
    names = {path.rpartition("/")[2] for _, path in changes} - {".gitattributes"}
    return bool(names & ALWAYS) or any(_is_requirements(name) for name in names)


def _is_requirements(name: str) -> bool:
    return name.startswith("requirements") and name.endswith(".txt")


def moved_to(path: str, old: str, new: str) -> str:
    """A path of an experiment's results under another name of the experiment."""
    before = generated_folder(old) + "/"
    return f"{generated_folder(new)}/{path[len(before) :]}" if path.startswith(before) else path


@contextlib.contextmanager
def standing_in(root: Path, worktree: Path, relative: str) -> Iterator[None]:
    """While it is entered, the working directory and Python's path are those of this state of the project.

    Modules of the project are forgotten before and after: each state has others of the same names.
    """
    here, path = os.getcwd(), list(sys.path)
    _forget_modules(worktree)
    try:
        os.chdir(root / relative if (root / relative).is_dir() else root)
        sys.path[:] = [str(root / own) if (own := _own(entry, worktree)) is not None else entry for entry in path]
        yield
    finally:
        sys.path[:] = path
        os.chdir(here)
        _forget_modules(root)


def _forget_modules(root: Path) -> None:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
        if file and name.partition(".")[0] != "labmake" and _own(file, root) is not None:
            del sys.modules[name]


def _own(path: str, root: Path) -> str | None:
    """A file or folder of a project's own, from its root; None for others, and for what is installed there."""
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(root)) if path else ".."
    parts = inside.split(os.sep)
    installed = any((part.startswith(".") and part != ".") or part in NEVER for part in parts)
    return None if installed else inside

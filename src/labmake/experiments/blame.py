"""Which commits changed a target's content: the history walked back from the worktree, by traces alone.

A commit is decided only if it touches something on which the state after it depends (the same files, folders and locks
that a null build watches), so most cost one look at the names of their files. A merge whose result is that of one of
its parents is followed there, as `git log` does, so that the commit on the branch is found and not its merge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from labmake.engine.recall import Memory, Recall
from labmake.engine.services import Services
from labmake.experiments.history import Commit, Exported, History
from labmake.experiments.recalled import (
    ABSENT,
    State,
    locks_differ,
    moved_to,
    recall_state,
    standing_in,
    touches,
)
from labmake.frozen import frozen
from labmake.layout import experiment_of, script_folder
from labmake.loading import rule_file

AT_ONCE = 128
"""Commits whose changes are asked of git together."""

NOT_YET = Commit("", (), "", "", "", "not committed yet")
"""Stands for what the worktree has beyond its last commit."""


@frozen
class Change:
    """The target changed in one of `commits` (newest first; mostly there is one), from one state to another."""

    commits: tuple[Commit, ...]
    before: State | None
    """None: the history begins with it."""
    after: State


@dataclass
class Blame:
    """What a walk found. `silent` commits changed an action and not the content; `skipped` could not be decided."""

    target: str
    now: State
    changes: list[Change] = field(default_factory=list)
    silent: list[Commit] = field(default_factory=list)
    skipped: list[tuple[Commit, str]] = field(default_factory=list)
    unknown: list[tuple[Commit, str]] = field(default_factory=list)
    renamed: list[tuple[Commit, str]] = field(default_factory=list)
    """Commits that gave the experiment its name, with the one before."""
    looked: int = 0
    decided: int = 0
    end: str = "enough"
    """Why the walk ended: enough (changes were found), start (of the history), limit, shallow."""


@frozen
class Wishes:
    """How far to look: so many changes, so many commits, not at commits that the revision `since` has."""

    changes: int = 1
    commits: int = 1000
    since: str = ""


@frozen
class _Trail:
    """On the way back: the nearest newer state that is known, and the commits since then that may have changed it."""

    later: State | None
    span: tuple[Commit, ...] = ()


@dataclass
class Walk:
    """A walk through a history; `open_at` opens the project whose files lie in a folder."""

    history: History
    exported: Exported
    open_at: Callable[[Path], Services]
    memory: Memory
    relative: str
    """The working directory, from the project's root."""
    progress: Callable[[Blame], object] = lambda _: None
    """Is told how far the walk has come, commit by commit."""
    _states: dict[str, State] = field(default_factory=dict)
    _order: dict[str, int] = field(default_factory=dict)
    _commits: Sequence[Commit] = ()

    def blame(self, services: Services, target: str, wishes: Wishes) -> Blame:
        """The changes of a target; `services` are those of the worktree."""
        now = recall_state(services, "", target, Recall(self.memory))
        found = Blame(target, now, decided=1)
        commits = self.history.log(wishes.commits, wishes.since)
        self._commits = [replace(NOT_YET, parents=(self.history.head,)), *commits]
        self._order = {commit.name: at for at, commit in enumerate(self._commits)}
        self._states = {"": now}
        trails: dict[str, _Trail] = {"": _Trail(None)}
        for at, commit in enumerate(self._commits):
            trail = trails.pop(commit.name, None)
            if trail is None:
                continue
            if not trails and len(found.changes) >= wishes.changes:
                return found
            if commit.name and not self.history.is_known(commit.name, commit.parents):
                pairs = ((one.name, p) for one in self._commits[at : at + AT_ONCE] for p in one.parents)
                self.history.between(pairs)
            found.looked += bool(commit.name)
            self.progress(found)
            for parent, next_trail in self._back(found, commit, trail):
                if parent in self._order:
                    trails.setdefault(parent, next_trail)
                else:
                    found.end = "limit"
            if len(found.changes) >= wishes.changes:
                return found
        return found

    def _back(self, found: Blame, commit: Commit, trail: _Trail) -> Iterator[tuple[str, _Trail]]:
        """The parents to go on with. Changes that are seen here are entered."""
        state = self._states[commit.name]
        if state.digest is not None:
            trail = _Trail(state)
        if not commit.parents:
            self._ended(found, commit, trail)
            return
        before = {}
        for parent in commit.parents:
            before[parent] = older = self._state(found, commit, parent)
            if trail.later is not None and older.digest is not None and older.digest == trail.later.digest:
                if older is not state and state.digest is not None and not older.is_decided_as(state):
                    found.silent.append(commit)
                yield parent, _Trail(older)
                return
        for parent, older in before.items():
            if older.digest is None:
                span = trail.span if older is state or trail.later is None else (*trail.span, commit)
                yield parent, _Trail(trail.later, span)
        if any(older.digest is None for older in before.values()):
            return
        first, older = next(iter(before.items()))
        if trail.later is not None:
            found.changes.append(Change((*trail.span, commit), older, trail.later))
        yield first, _Trail(older)

    def _ended(self, found: Blame, commit: Commit, trail: _Trail) -> None:
        """The walk has come to a commit that has no parents."""
        if self.history.shallow:
            found.end = "shallow"
        else:
            found.end = "start"
            if trail.later is not None and trail.later.digest != ABSENT:
                found.changes.append(Change((*trail.span, commit), None, trail.later))

    # States of commits -------------------------------------------------------------------------------------------

    def _state(self, found: Blame, newer: Commit, older: str) -> State:
        """The state of a parent; that of its child if nothing on which that depends is different."""
        if older in self._states:
            return self._states[older]
        after = self._states[newer.name]
        changes = self.history.changes(newer.name, older) if newer.name else self.history.uncommitted()

        def existed(folder: str) -> bool:
            if newer.name and not self.history.has_folder(newer.name, folder):
                return False
            there = bool(newer.name) or (self.history.root / folder).is_dir()
            return there and self.history.has_folder(older, folder)

        if not touches(after, changes, existed):
            state = after
        else:
            state = self._decide(found, newer, older, after, locks_differ(changes))
        self._states[older] = state
        return state

    def _decide(self, found: Blame, newer: Commit, older: str, after: State, moved: bool) -> State:
        commit = self._commits[self._order[older]] if older in self._order else self.history.commit(older)
        self.history.export(older, self.exported)
        root = self.exported.tree / self.history.prefix
        target = self._name_before(found, newer, older, after.target, root)
        with standing_in(root, self.history.root, self.relative):
            services = self.open_at(root)
            state = recall_state(services, older, target, Recall(self.memory, after.software, moved))
        found.decided += 1
        if state.digest is None:
            (found.skipped if state.broken else found.unknown).append((commit, state.why))
        return state

    def _name_before(self, found: Blame, newer: Commit, older: str, target: str, root: Path) -> str:
        """What the target was called in an older commit, if its experiment was renamed since then."""
        experiment = experiment_of(target) or ""
        if not experiment or (root / script_folder(experiment)).is_dir():
            return target
        before = self.history.renamed(newer.name, older, rule_file(experiment))
        old = experiment_of(before) if before is not None else None
        if not old or rule_file(old) != before:
            return target
        found.renamed.append((newer, old))
        return moved_to(target, experiment, old)

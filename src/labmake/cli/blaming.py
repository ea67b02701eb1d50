"""`labmake blame`: which commit changed the content of a target, what it changed in its making, and how it looks."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from labmake.cli.session import Session, open_services, resolve_one, session
from labmake.documents.pictures import NoPicture, is_figure, picture_of
from labmake.engine.recall import Memory
from labmake.engine.services import Services
from labmake.engine.why import SHOWN, told
from labmake.errors import Misuse, printable
from labmake.experiments.blame import Blame, Change, Walk, Wishes
from labmake.experiments.causes import Cause, as_json, causes, content_lines
from labmake.experiments.history import Commit, History, exported, open_history
from labmake.experiments.recalled import ABSENT
from labmake.frozen import frozen
from labmake.layout import Project, experiments, short
from labmake.model import Digest
from labmake.store.state import State as StateFile

SHORT = 10
"""Hexadecimal digits of a commit that are shown."""

FEW = 8
"""Commits of one kind that are named."""


@frozen
class Asked:
    """The words of the command line."""

    target: str
    experiment: str | None
    wishes: Wishes
    output: str
    json: bool


@frozen
class Shown:
    """A change with why it came about, the lines that differ in the content, and what is told of its picture."""

    change: Change
    causes: Sequence[Cause]
    lines: Sequence[str]
    picture: str


def run_blame(asked: Asked) -> int:
    """Tell which commits changed a target."""
    output = Path(asked.output).absolute() if asked.output else None
    with session(asked.experiment, words=[asked.target]) as opened:
        paths = resolve_one(opened, asked.target)
        if len(paths) != 1:
            facts = [("target", short(path, opened.experiment)) for path in paths]
            raise Misuse(f"{asked.target} is a group", facts, ["ask for one of its targets"])
        history = open_history(opened.project.root)
        with _walk(opened, history) as walk:
            walk.progress = _progress
            found = walk.blame(opened.services, paths[0], asked.wishes)
            outputs = [output, *[None] * len(found.changes)]  # a file that is named gets the newest difference
            shown = [_shown(opened, history, *one) for one in zip(found.changes, outputs, strict=False)]
            text = _json(found, shown) if asked.json else _text(opened, found, shown)
    click.echo(text)
    return 0


def _progress(found: Blame) -> None:
    """On a terminal, how far the walk has come: a history of commits that all matter takes 0.1 s for each."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{found.looked} commits looked at, {found.decided} decided \r")


@contextmanager
def _walk(opened: Session, history: History) -> Iterator[Walk]:
    """A walk with a folder for the files of commits, and a state file for what is known of them; both go with it."""
    project = opened.project
    folder = exported(project.state, history.ignored())
    try:
        known = StateFile.open(folder.folder / "state.db")
        try:
            known.put_stats(opened.services.state.stats())  # files that git ignores are the worktree's own

            def open_at(root: Path) -> Services:
                there = Project(root, project.state)
                return open_services(there, experiments(there), known, opened.services)

            relative = os.path.relpath(opened.here, project.root)
            yield Walk(history, folder, open_at, Memory(opened.services.blobs), relative)
        finally:
            known.close()
    finally:
        shutil.rmtree(folder.folder, ignore_errors=True)


# What there is to show of a change ----------------------------------------------------------------------------------


def _shown(opened: Session, history: History, change: Change, output: Path | None) -> Shown:
    found = causes(history, change)
    before = change.before.digest if change.before is not None else ABSENT
    after = change.after.digest
    if not before or not after:
        return Shown(change, found, (), "")
    if not (opened.services.blobs.has(before) and opened.services.blobs.has(after)):
        return Shown(change, found, ("the store no longer has both versions: `labmake gc` removed one",), "")
    if is_figure(change.after.target):
        return Shown(change, found, (), _picture(opened, change, before, after, output))
    return Shown(change, found, content_lines(change.after, change.after.target, before, after), "")


def _picture(opened: Session, change: Change, before: Digest, after: Digest, output: Path | None) -> str:
    """Draw the difference of two figures; returns where it lies and what it shows, or why there is none."""
    blobs = opened.services.blobs
    try:
        png, words = picture_of(change.after.target, blobs.read(before), blobs.read(after))
    except NoPicture as reason:
        return f"no picture of the difference: {reason}"
    stem = Path(change.after.target).stem
    place = output or opened.project.state / "pictures" / f"{stem}-{before[:SHOWN]}-{after[:SHOWN]}.png"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png)
    except OSError as error:
        facts = [("file", place), ("reason", error.strerror)]
        raise Misuse("the picture cannot be written", facts, ["name another file: --output FILE"]) from None
    return f"{place}  ({words})"


# As a text ----------------------------------------------------------------------------------------------------------


def _text(opened: Session, found: Blame, shown: Sequence[Shown]) -> str:
    name = short(found.target, opened.experiment)
    lines: list[str] = []
    if found.now.digest is None:
        lines += [f"{name} as it is now is not known: {found.now.why}", ""]
    for one in shown:
        lines += [*_change(opened, name, one), ""]
    return printable("\n".join([*lines, *_rest(name, found)]))


def _change(opened: Session, name: str, one: Shown) -> Iterator[str]:
    change = one.change
    what = "was first made" if change.before is None or change.before.digest == ABSENT else "changed"
    what = "is no longer made" if change.after.digest == ABSENT else what
    if len(change.commits) > 1:
        yield f"{name} {what} in one of these commits; of those in between this store has no result:"
        yield from (f"  {_commit(commit)}" for commit in change.commits[:FEW])
        if len(change.commits) > FEW:
            yield f"  and {len(change.commits) - FEW} more, to {_commit(change.commits[-1])}"
    else:
        yield f"{name} {what} in"
        yield f"  {_commit(change.commits[0])}"
    if not one.causes and change.after.digest:
        yield f"  as {change.after.digest[:SHOWN]}"
    for cause in one.causes:
        yield f"{_name(opened, cause.target)}  {cause.before[:SHOWN] or '(none)'} → {cause.after[:SHOWN] or '(none)'}"
        width = max((len(each.reason.kind) for each in cause.told), default=0)
        for each in cause.told[:FEW]:
            yield f"  {each.reason.kind.ljust(width)}  {told(each.reason)}"
            yield from (f"      {line}" for line in each.lines)
        if len(cause.told) > FEW:
            yield f"  and {len(cause.told) - FEW} more differences"
    if one.lines:
        yield f"the content of {name}:"
        yield from (f"      {line}" for line in one.lines)
    if one.picture:
        yield f"picture  {one.picture}"


def _name(opened: Session, path: str) -> str:
    return short(path, opened.experiment)


def _commit(commit: Commit) -> str:
    if not commit.name:
        return commit.subject
    return f"{commit.name[:SHORT]}  {commit.when[:10]}  {commit.author} <{commit.email}>  {commit.subject}"


def _rest(name: str, found: Blame) -> Iterator[str]:
    """What else the walk saw, a line for each kind, and how far it went."""
    if not found.changes:
        known = found.now.digest is not None or any(True for _ in found.silent)
        yield f"no change of {name} was found" if known else f"{name} was made in none of the commits looked at"
    for commit, old in found.renamed:
        yield f"the experiment was called {old} before {_commit(commit)}"
    if found.silent:
        yield f"{_count(found.silent)} changed how it is made and not its content: {_names(found.silent)}"
    if found.unknown:
        commits = [commit for commit, _ in found.unknown]
        yield f"of {_count(commits)} this store has no result: {_names(commits)}"
        yield f"  {found.unknown[0][1]}"
    for commit, why in found.skipped[:FEW]:
        yield f"skipped {_commit(commit)}: {why}"
    if len(found.skipped) > FEW:
        yield f"skipped {len(found.skipped) - FEW} more"
    ends = {
        "start": "to the first one",
        "limit": "older ones were not looked at (--history, --since)",
        "shallow": "older ones are not in this shallow clone: `git fetch --unshallow`",
        "enough": "older changes: --number",
    }
    yield f"{found.looked} commit{'s' * (found.looked != 1)} looked at, {found.decided} decided; {ends[found.end]}"


def _count(commits: Sequence[Commit]) -> str:
    return f"{len(commits)} commit{'s' * (len(commits) != 1)}"


def _names(commits: Sequence[Commit]) -> str:
    shown = [commit.name[:SHORT] or commit.subject for commit in commits[:FEW]]
    return ", ".join([*shown, *(["…"] if len(commits) > FEW else [])])


# As JSON ------------------------------------------------------------------------------------------------------------


def _json(found: Blame, shown: Sequence[Shown]) -> str:
    told_of: dict[str, Any] = {
        "version": 1,
        "target": found.target,
        "digest": found.now.digest,
        "changes": [
            {
                "commits": [_as_json(commit) for commit in one.change.commits],
                "before": one.change.before.digest if one.change.before is not None else ABSENT,
                "after": one.change.after.digest,
                "causes": as_json(one.causes),
                "lines": list(one.lines),
                "picture": one.picture,
            }
            for one in shown
        ],
        "silent": [commit.name for commit in found.silent],
        "unknown": [{"commit": commit.name, "why": why} for commit, why in found.unknown],
        "skipped": [{"commit": commit.name, "why": why} for commit, why in found.skipped],
        "renamed": [{"commit": commit.name, "from": old} for commit, old in found.renamed],
        "looked": found.looked,
        "decided": found.decided,
        "end": found.end,
    }
    return json.dumps(told_of, ensure_ascii=True)


def _as_json(commit: Commit) -> Mapping[str, str]:
    return {
        "commit": commit.name,
        "when": commit.when,
        "author": commit.author,
        "email": commit.email,
        "subject": commit.subject,
    }

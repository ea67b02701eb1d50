"""`labmake keep`: accept existing results under changed code or environment, and record who did and why."""

from __future__ import annotations

import getpass
import os
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from labmake.cli.session import Session, resolve, session
from labmake.engine.build import Build
from labmake.engine.outputs import touched
from labmake.engine.questions import loaded_of
from labmake.engine.runner import Executor
from labmake.engine.services import Options, Services
from labmake.engine.why import Reason, differences, told
from labmake.errors import LabmakeError, Misuse, printable
from labmake.layout import short
from labmake.model import Action, Digest, Fact, Trace
from labmake.store.digest import blob_of, is_folder, parse_manifest, plain
from labmake.store.traces import Accepted

CODE = ("code", "environment", "recipe", "text", "wrap")
"""The lines of an action that say how, not of what, a result is made: these may differ."""


def run_keep(targets: Sequence[str], why: str, experiment: str | None) -> int:
    """Accept the results of targets, those that need others of them after these; returns the exit code."""
    kept: dict[str, list[str]] = {}
    while more := _round(targets, why, experiment, kept):
        kept |= more
        with session(experiment, words=targets) as opened:
            Build(opened.services, Options(), _nothing_runs).bring(more)
            for node, reasons in more.items():
                click.echo(printable(f"kept {short(node, opened.experiment)}: {', '.join(reasons)}"))
    return 0


def _nothing_runs() -> Executor:
    raise Misuse("code was changed while results of it were kept", [], ["run `labmake keep` again"])


def _round(
    targets: Sequence[str], why: str, experiment: str | None, kept: dict[str, list[str]]
) -> dict[str, list[str]]:
    """Keep what is known to run now; returns these nodes with what changed. What they make known is another round."""
    with session(experiment, words=targets) as opened:
        paths = resolve(opened, targets)
        build = opened.build(Options(dry=True))
        build.bring(paths)
        nodes = list(dict.fromkeys(opened.services.rulebook.find(path).node for path in paths))
        ready = [node for node in nodes if node in build.outcome.would and node not in kept]
        if not ready:
            _check_all(opened, build, nodes, kept)
            return {}
        checked = {node: _check(opened, build, node) for node in ready}
        for node, (fact, action, reasons) in checked.items():
            _accept(opened.services, node, fact, action, Accepted(fact.action, _who(opened), why, time.time(), reasons))
        return {node: reasons for node, (_, _, reasons) in checked.items()}


def _check_all(opened: Session, build: Build, nodes: Iterable[str], kept: dict[str, list[str]]) -> None:
    """Raise what keeps a target from being kept, when there is nothing more to keep."""
    outcome = build.outcome
    for node in nodes:
        name = short(node, opened.experiment)
        if node in outcome.failed:
            raise outcome.failed[node]
        blocker = outcome.unknown.get(node) or outcome.skipped.get(node)
        if blocker is not None:
            needs = short(blocker, opened.experiment)
            raise Misuse(
                f"{name} cannot be kept: it needs {needs}, which is not up to date",
                [("target", node), ("needs", blocker)],
                [f"keep that too: `labmake keep {needs} {name}`", f"or make it first: `labmake build {needs}`"],
            )
        if node not in kept:
            click.echo(f"{name} is up to date: nothing to keep")


def _check(opened: Session, build: Build, node: str) -> tuple[Fact, Action, list[str]]:
    """The fact and the new action of a node whose result may be kept, and what changed. Raises Misuse."""
    services, name = opened.services, short(node, opened.experiment)
    fact, action = build.fact(node), services.actions.get(node)
    if build.outcome.would[node].how == "restore":
        raise _refused(name, "the store has a result already", [], [f"`labmake build {name}` puts it in its place"])
    if fact is None:
        raise _refused(name, "it was never made here", [], [f"make it: `labmake build {name}`"])
    if action is None:
        raise _refused(name, "it is a source", [], ["data are accepted by removing their line in hashes.txt"])
    if set(fact.outputs) != set(services.rulebook.find(node).outputs.values()):
        raise _refused(name, "its rule has other outputs now", [], [f"make it: `labmake build {name}`"])
    wrong = touched(services, fact)
    if wrong:
        advice = f"`labmake restore {name}` puts back what was made"
        raise _refused(name, "its files are not as they were made", [("file", "\n".join(wrong))], [advice])
    reasons = differences(services, fact, action)
    other = [(reason.kind, _told(reason)) for reason in reasons if reason.kind not in CODE]
    if other:
        advice = "only changes of code and environment can be accepted: other data or parameters are another result"
        raise _refused(name, "more than its code has changed", other, [advice])
    return fact, action, [f"{reason.kind} {_told(reason)}" for reason in reasons] or ["its trace was lost"]


def _told(reason: Reason) -> str:
    if reason.kind == "code" or not (reason.old or reason.new):
        return f"{reason.subject} {reason.words}".rstrip()
    if reason.kind == "environment":
        return told(reason)
    return f"{reason.subject} {reason.old or '(nothing)'} → {reason.new or '(nothing)'}".strip()


def _refused(name: str, why: str, facts: Sequence[tuple[str, object]], todo: Sequence[str]) -> LabmakeError:
    return Misuse(f"{name} cannot be kept: {why}", facts, todo)


def _accept(services: Services, node: str, fact: Fact, action: Action, accepted: Accepted) -> None:
    """Store the outputs if the store has lost them, then the action's text, then the trace."""
    outputs = services.rulebook.find(node).outputs
    digests = {name: fact.outputs[path][0] for name, path in outputs.items()}
    for name, path in outputs.items():
        if not services.blobs.has(digests[name]):
            _store(services, services.absolute(path), digests[name])
    services.keep(action.text.encode())
    old = services.blobs.trace(fact.action)
    seconds, peak, log = (old.seconds, old.peak, old.log) if old else (0.0, 0, services.keep(b""))
    loaded = services.environments.versions(loaded_of(fact))
    when, there = old.when if old else accepted.when, {name: version for name, version in loaded.items() if version}
    trace = Trace(action.digest, digests, seconds, peak, log, when, there, services.environments.locks)
    services.blobs.add_trace(trace, accepted=accepted)


def _store(services: Services, path: str, digest: Digest) -> None:
    if not is_folder(digest):
        services.blobs.put_copy(path, plain(digest))
        return
    for entry in parse_manifest(services.blobs.read(blob_of(digest))):
        if entry.kind in "fx":
            services.blobs.put_copy(os.path.join(path, entry.path), entry.value)


def _who(opened: Session) -> str:
    """The person as git knows them, else the user's name."""
    name, email = (_git(opened.project.root, f"user.{part}") for part in ("name", "email"))
    if name or email:
        return f"{name} <{email}>".strip() if email else name
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _git(root: Path, setting: str) -> str:
    try:
        said = subprocess.run(["git", "config", setting], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return said.stdout.strip()


def acceptances(services: Services, action: Digest) -> list[str]:
    """What to tell of a result that was accepted: by whom, when, why, in spite of what; back to the step that ran."""
    lines: list[str] = []
    seen: set[Digest] = set()
    counts = services.environments.counts
    while action not in seen and (accepted := services.blobs.accepted(action, counts)) is not None:
        seen.add(action)
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(accepted.when))
        lines.append(f"kept by {accepted.who} on {when}: {accepted.why or 'no reason given'}")
        lines += [f"  in spite of  {what}" for what in accepted.different]
        action = accepted.source
    return [printable(line) for line in lines]

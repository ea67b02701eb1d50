"""Commands that look and change nothing: status, why, failures, logs."""

from __future__ import annotations

import os
import sys
from collections import Counter

import click

from labmake.cli.following import follow_log, running_step
from labmake.cli.keeping import acceptances
from labmake.cli.session import Session, default_targets, resolve_one, session
from labmake.engine.build import Build, Outcome
from labmake.engine.jobs import failed_folder
from labmake.engine.services import Options
from labmake.engine.why import differences, told
from labmake.errors import Edited, Misuse, format_error
from labmake.layout import short


def run_status(experiment: str | None) -> int:
    """Tell the state of the current experiment."""
    with session(experiment) as opened:
        targets = default_targets(opened)
        outcome = _dry(opened, targets)[0]
        click.echo(f"experiment  {opened.experiment or '(the project has none)'}")
        counts = Counter({"up to date": outcome.count("fresh")})
        counts.update(f"would {would.how}" for would in outcome.would.values())
        counts.update({"known after these have run": len(outcome.unknown)})
        edited = [node for node, error in outcome.failed.items() if isinstance(error, Edited)]
        counts.update({"edited": len(edited), "cannot be made": len(outcome.failed) - len(edited)})
        counts.update({"need what cannot be made": len(outcome.skipped)})
        click.echo("targets     " + (", ".join(f"{n} {word}" for word, n in counts.items() if n) or "none"))
        for node, would in outcome.would.items():
            click.echo(f"  would {would.how.ljust(8)} {short(node, opened.experiment)}   {would.why}")
        for node, after in outcome.unknown.items():
            click.echo(f"  then           {short(node, opened.experiment)}   after {short(after, opened.experiment)}")
        for error in outcome.failed.values():
            click.echo(f"error: {format_error(error)}")
        failed = [node for node in opened.services.state.failures() if _belongs(opened, node)]
        if failed:
            click.echo(f"{len(failed)} failed when last run: `labmake failures`")
    return 0


def _dry(opened: Session, targets: list[str]) -> tuple[Outcome, Build]:
    build = opened.build(Options(dry=True))
    build.bring(targets)
    return build.outcome, build


def run_why(target: str, experiment: str | None) -> int:
    """Tell why a target would be made again, back to where the change is."""
    with session(experiment, words=[target]) as opened:
        path = resolve_one(opened, target)[0]
        outcome, build = _dry(opened, [path])
        node = opened.services.rulebook.find(path).node
        seen: set[str] = set()
        while node in outcome.unknown and node not in seen:
            seen.add(node)
            after = outcome.unknown[node]
            click.echo(f"{short(node, opened.experiment)} is known only after {short(after, opened.experiment)}:")
            node = after
        name = short(node, opened.experiment)
        if node in outcome.failed:
            click.echo(f"error: {format_error(outcome.failed[node])}")
        elif node in outcome.skipped:
            click.echo(f"{name} cannot be made: it needs {short(outcome.skipped[node], opened.experiment)}")
            root = outcome.failed.get(outcome.skipped[node])
            if root is not None:
                click.echo(f"error: {format_error(root)}")
        elif node in outcome.would:
            _tell_reasons(opened, build, node, outcome)
        else:
            click.echo(f"{name} is up to date: nothing it depends on has changed")
            fact = build.fact(node)
            for line in acceptances(opened.services, fact.action) if fact is not None else ():
                click.echo(line)
    return 0


def _tell_reasons(opened: Session, build: Build, node: str, outcome: Outcome) -> None:
    would = outcome.would[node]
    name = short(node, opened.experiment)
    word = "would run" if would.how == "run" else "would be restored from the store"
    click.echo(f"{name} {word}: {would.why}")
    fact, action = build.fact(node), opened.services.actions.get(node)
    if fact is None or action is None:
        return
    reasons = differences(opened.services, fact, action)
    width = max((len(reason.kind) for reason in reasons), default=0)
    for reason in reasons:
        click.echo(f"  {reason.kind.ljust(width)}  {told(reason)}")


def run_failures(experiment: str | None) -> int:
    """Show the failures that the state has, one screen each."""
    with session(experiment) as opened:
        found = {n: text for n, text in sorted(opened.services.state.failures().items()) if _belongs(opened, n)}
        for text in found.values():
            click.echo(f"error: {text}\n")
        click.echo(f"{len(found)} failed" if found else "nothing failed when it was last run")
    return 0


def _belongs(opened: Session, node: str) -> bool:
    prefix = f"generated/{opened.experiment}/" if opened.experiment else "generated/"
    return node.startswith(prefix)


def run_logs(target: str, experiment: str | None, follow: bool = False) -> int:
    """Print the log of a target's last run: of the failed one if it failed, else of what made it.

    With `follow`, if its step runs now, print what it prints until it ends.
    """
    with session(experiment, words=[target]) as opened:
        path = resolve_one(opened, target)[0]
        services = opened.services
        node = services.rulebook.find(path).node
        step = running_step(services, node) if follow else None
        if step is not None:
            follow_log(services, step, sys.stdout.buffer)
            return 0
        if node in services.state.failures():
            log = os.path.join(failed_folder(services, node), "log")
            if os.path.exists(log):
                with open(log, "rb") as file:
                    click.echo(file.read(), nl=False)
                return 0
        fact = opened.build(Options(dry=True)).fact(node)
        trace = services.blobs.trace(fact.action) if fact is not None and not fact.action.startswith("source") else None
        if trace is None:
            raise Misuse(f"{short(node, opened.experiment)} has no log", [], ["it was not made by a step here yet"])
        for line in acceptances(services, trace.action):
            click.echo(line, err=True)
        click.echo(services.blobs.read(trace.log), nl=False)
    return 0

"""Commands that put files back or take them away: restore, clean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import click

from labmake.cli.progress import Progress
from labmake.cli.session import Session, resolve, session
from labmake.engine import outputs as places
from labmake.engine.build import Build
from labmake.engine.nodes import fact_text
from labmake.engine.services import Options
from labmake.errors import StoreError, exit_code, format_error
from labmake.layout import generated_folder, short
from labmake.model import Fact


def run_restore(targets: Iterable[str], experiment: str | None) -> int:
    """Put the recorded content of targets back in their places, setting aside what is there."""
    progress = Progress()
    with session(experiment, progress, words=targets) as opened:
        progress.experiment = opened.experiment
        lost, count = [], 0
        for fact in _facts(opened, targets):
            wrong = places.touched(opened.services, fact)
            if not (wrong and fact.rule):  # without a rule it is what a node left behind that no longer makes it
                continue
            wanted = {path: fact.outputs[path][0] for path in wrong}
            placed = places.restore(opened.services, wanted, None, discard=True)
            if placed is None:
                lost.append(
                    StoreError(f"the store no longer has {short(fact.node, opened.experiment)}", [], ["build it again"])
                )
                continue
            known = replace(fact, outputs={**fact.outputs, **placed})
            opened.services.state.put_facts({fact.node: fact_text(known)})
            progress.restored(fact.node)
            count += 1
        progress.end()
        for error in lost:
            click.echo(f"error: {format_error(error)}", err=True)
        click.echo(f"{count} restored", err=True)
    return exit_code(lost)


def run_clean(targets: Iterable[str], experiment: str | None) -> int:
    """Remove the files of targets that lie as they were placed and that the store can restore."""
    with session(experiment, words=targets) as opened:
        count = kept = 0
        for fact in _facts(opened, targets):
            if not all(opened.services.blobs.has(digest) for digest, _ in fact.outputs.values()):
                kept += 1
                continue
            gone = places.remove(opened.services, fact)
            count += len(gone)
            kept += len(fact.outputs) - len(gone)
        word = f", {kept} left: edited, gone already or not in the store" if kept else ""
        click.echo(f"{count} removed{word}; the next build restores them", err=True)
    return 0


def _facts(opened: Session, targets: Iterable[str]) -> Iterator[Fact]:
    """The facts of targets, or all of the current experiment."""
    words = list(targets)
    build: Build = opened.build(Options(dry=True))
    if words:
        nodes = [opened.services.rulebook.find(path).node for path in resolve(opened, words)]
    else:
        prefix = f"{generated_folder(opened.experiment)}/"
        nodes = [node for node in build.recorded if node.startswith(prefix)]
    for node in dict.fromkeys(nodes):
        fact = build.fact(node)
        if fact is not None:
            yield fact

"""Commands that show what there is: rules, graph."""

from __future__ import annotations

from collections.abc import Sequence

import click

from labmake.cli.session import Session, default_targets, resolve, session
from labmake.engine.graph import dot, graph, mermaid
from labmake.engine.patterns import fill
from labmake.engine.rulebook import EXP
from labmake.engine.services import Options
from labmake.errors import printable
from labmake.layout import GENERATED, SCRIPTS, short
from labmake.model import Recipe, Rule

LONG = 100
"""Characters of a shell command that are shown."""


def run_rules(experiment: str | None) -> int:
    """Show every rule that makes targets of the experiment, one block each."""
    with session(experiment) as opened:
        rules = opened.services.rulebook.rules(opened.experiment)
        for rule in rules:
            click.echo(printable(_block(opened, rule)))
        groups = {
            name: targets
            for owner in dict.fromkeys(("", opened.experiment))
            for name, (targets, _) in opened.services.rulebook.file(owner).groups.items()
        }
        for name, targets in groups.items():
            members = ", ".join(_shown(opened, path) for path in targets)
            click.echo(printable(f"group {name}\n    {members}\n"))
        click.echo(f"{len(rules)} rule{'s' * (len(rules) != 1)}")
    return 0


def _block(opened: Session, rule: Rule) -> str:
    """A rule as a person reads it: patterns, description, recipe, where it is written."""
    patterns = [
        short(fill(pattern, {EXP: opened.experiment} if opened.experiment else {}), opened.experiment)
        for pattern in rule.outputs.values()
    ]
    description = str(rule.options.get("description", ""))
    lines = [", ".join(patterns), *([f"    {description}"] if description else [])]
    return "\n".join([*lines, f"    {recipe_of(rule)}   {rule.where}", ""])


def recipe_of(rule: Rule) -> str:
    """What a rule runs, in one line."""
    if rule.address:
        return f"source {rule.address}"
    if rule.step is not None:
        return _recipe(rule.step.recipe)
    return f"document {rule.where.file.rpartition('/')[2]}" if rule.where.file.endswith(".md") else _plan(rule)


def _plan(rule: Rule) -> str:
    return f"plan {getattr(rule.plan, '__name__', '')}".strip()


def _recipe(recipe: Recipe) -> str:
    if recipe.kind == "sh":
        command = " ".join(recipe.text.split())
        return f"sh {command[: LONG - 1]}…" if len(command) > LONG else f"sh {command}"
    what = f"{recipe.text.removeprefix('./')}:{recipe.function}" if recipe.function else recipe.text.removeprefix("./")
    return f"{recipe.interpreter or 'py'} {what}"


def _shown(opened: Session, path: str) -> str:
    """A path as the experiment's author writes it; addresses and paths elsewhere as they are."""
    known = path.startswith((f"{GENERATED}/", f"{SCRIPTS}/"))
    return short(path, opened.experiment) if known else path


def run_graph(targets: Sequence[str], form: str, experiment: str | None) -> int:
    """Print the graph of targets (without any: what a build without targets makes) as Mermaid or DOT."""
    with session(experiment, words=targets) as opened:
        wanted = resolve(opened, targets) if targets else default_targets(opened)
        build = opened.build(Options(dry=True))
        drawn = graph(opened.services, build.fact, wanted, lambda path: _shown(opened, path), recipe_of)
        click.echo((mermaid if form == "mermaid" else dot)(drawn), nl=False)
    return 0

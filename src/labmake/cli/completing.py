"""Completion of commands and targets in bash, zsh and fish: the scripts, and the targets that a word may become.

A Tab must not wait: nothing is built, nothing is locked, facts are not read but counted by name, and what goes wrong
(a script.py that is being edited) gives no targets and no message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from labmake.cli.session import current_experiment, open_services
from labmake.engine.patterns import wildcards
from labmake.engine.rulebook import EXP, Match
from labmake.errors import Misuse
from labmake.layout import GENERATED, experiments, find_project, generated_folder, short
from labmake.store.state import State

MOST = 1000
"""Targets that are offered at most; nobody reads more."""

VARIABLE = "_LABMAKE_COMPLETE"
"""The environment variable by which a shell's script asks."""


def run_completion(shell: str, command: click.Command) -> int:
    """Print the script that a shell reads to complete the words after `labmake` and `lm`."""
    kind = get_completion_class(shell)
    if kind is None:
        raise Misuse(f"there is no completion for {shell}", [("shells", "bash, zsh, fish")], ["name one of these"])
    text = _checked(kind(command, {}, "labmake", VARIABLE).source_template, shell)
    click.echo(text)
    return 0


def _checked(template: str, shell: str) -> str:
    """A shell's script for both names of the command."""
    text = template % {"complete_func": "_labmake_completion", "complete_var": VARIABLE, "prog_name": "labmake"}
    if shell == "bash":
        return text.replace("-F _labmake_completion labmake", "-F _labmake_completion labmake lm")
    if shell == "zsh":
        text = text.replace("#compdef labmake", "#compdef labmake lm")
        return text.replace("compdef _labmake_completion labmake", "compdef _labmake_completion labmake lm")
    return text + "\ncomplete --command lm --wraps labmake\n"


def targets(incomplete: str, experiment: str | None, words: Iterable[str] = ()) -> list[str]:
    """What a word that begins like this may become: short paths, names and stems that only one target has, groups, and
    with a leading `generated/` paths from the root."""
    if os.environ.get("LABMAKE_IN_STEP"):
        return []
    here = Path(os.path.realpath(Path.cwd()))
    project = find_project(here)
    known = experiments(project)
    current = current_experiment(project, known, here, experiment, [*words])
    state = State.open(project.database)
    try:
        rulebook = open_services(project, known, state).rulebook
        literal = [
            path
            for rule in rulebook.rules(current)
            if not any(name != EXP for name in wildcards(next(iter(rule.outputs.values()))))
            for path in Match(rule, {}, current).outputs.values()
        ]
        prefix = f"{generated_folder(current)}/"
        paths = [*literal, *(node for node in state.nodes() if node.startswith(prefix))]
        groups = [*rulebook.file("").groups, *rulebook.file(current).groups]
    finally:
        state.close()
    return _offered(incomplete, list(dict.fromkeys(paths)), groups, current)


def _offered(incomplete: str, paths: list[str], groups: list[str], experiment: str) -> list[str]:
    if incomplete.startswith(f"{GENERATED}/"):
        return [path for path in paths if path.startswith(incomplete)][:MOST]
    shorts = [short(path, experiment) for path in paths]
    found = [name for name in (*groups, *shorts) if name.startswith(incomplete)]
    if incomplete and "/" not in incomplete:
        names = [path.rstrip("/").rpartition("/")[2] for path in paths]
        stems = [_stem(name) for name in names]
        found += [stem for stem in _once(stems) if stem.startswith(incomplete)]
        found += [name for name in _once(names) if name.startswith(incomplete) and stems.count(_stem(name)) > 1]
    return list(dict.fromkeys(found))[:MOST]


def _stem(name: str) -> str:
    return re.sub(r"\.[^.]+$", "", name)


def _once(names: list[str]) -> list[str]:
    """The names that occur once."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    return [name for name, count in seen.items() if count == 1]


def complete_targets(context: click.Context, parameter: click.Parameter | None, incomplete: str) -> list[str]:
    """What click asks for the targets of a command."""
    try:
        return targets(incomplete, context.params.get("experiment"))
    except Exception:  # whatever is wrong is told when the command is run
        return []


def complete_experiments(incomplete: str) -> list[str]:
    """The experiments whose name has these letters."""
    try:
        return [name for name in experiments(find_project(Path.cwd())) if incomplete.lower() in name.lower()]
    except Exception:
        return []

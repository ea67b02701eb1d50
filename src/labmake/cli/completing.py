"""Completion of commands and targets in bash, zsh and fish: the scripts, and the targets that a word may become.

A Tab must not wait: nothing is built, nothing is locked, of many thousand targets the first are read, and what goes
wrong (a script.py that is being edited) gives no targets and no message.
"""

from __future__ import annotations

import os
import re
from collections import Counter
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
    text = _script(kind(command, {}, "labmake", VARIABLE).source_template, shell)
    click.echo(text)
    return 0


def _script(template: str, shell: str) -> str:
    """A shell's script for both names of the command."""
    text = template % {"complete_func": "_labmake_completion", "complete_var": VARIABLE, "prog_name": "labmake"}
    if shell == "bash":
        return text.replace("-F _labmake_completion labmake", "-F _labmake_completion labmake lm")
    if shell == "zsh":
        text = text.replace("#compdef labmake", "#compdef labmake lm")
        return text.replace("compdef _labmake_completion labmake", "compdef _labmake_completion labmake lm")
    return text + "\ncomplete --command lm --wraps labmake\n"


def targets(incomplete: str, experiment: str | None) -> list[str]:
    """What a word that begins like this may become: short paths, names and stems that only one target has, groups, and
    with a leading `generated/` paths from the root."""
    if os.environ.get("LABMAKE_IN_STEP"):
        return []
    here = Path(os.path.realpath(Path.cwd()))
    project = find_project(here)
    known = experiments(project)
    current = current_experiment(project, known, here, experiment)
    state = State.open(project.database)
    try:
        rulebook = open_services(project, known, state).rulebook
        literal = [
            path
            for rule in rulebook.rules(current)
            if not any(name != EXP for name in wildcards(next(iter(rule.outputs.values()))))
            for path in Match(rule, {}, current).outputs.values()
        ]
        made = [node for start in _starts(incomplete, current) for node in state.nodes(start, MOST)]
        named = [] if "/" in incomplete else state.nodes(f"{generated_folder(current)}/", MOST)
        groups = [*rulebook.file("").groups, *rulebook.file(current).groups]
    finally:
        state.close()
    if incomplete.startswith(f"{GENERATED}/"):
        return [path for path in dict.fromkeys([*literal, *made]) if path.startswith(incomplete)]
    shorts = [short(path, current) for path in (*literal, *made)]
    found = [name for name in (*groups, *shorts) if name.startswith(incomplete)]
    if incomplete and "/" not in incomplete:
        found += _by_name(incomplete, list(dict.fromkeys([*literal, *made, *named])))
    return list(dict.fromkeys(found))[:MOST]


def _starts(incomplete: str, experiment: str) -> list[str]:
    """How the project paths begin that a word may become: short paths lie in two folders."""
    if incomplete.startswith(f"{GENERATED}/"):
        return [incomplete]
    folder = generated_folder(experiment)
    outputs = "outputs/".startswith(incomplete) or incomplete.startswith("outputs/")
    return [f"{folder}/assets/{incomplete}", *([f"{folder}/{incomplete}"] if outputs and incomplete else [])]


def _by_name(incomplete: str, paths: list[str]) -> list[str]:
    """Stems that one target has, and names where several have the stem."""
    names = Counter(path.rstrip("/").rpartition("/")[2] for path in paths)
    stems: Counter[str] = Counter()
    for name, count in names.items():
        stems[_stem(name)] += count
    found = [stem for stem, count in stems.items() if count == 1 and stem.startswith(incomplete)]
    return found + [n for n, count in names.items() if count == 1 < stems[_stem(n)] and n.startswith(incomplete)]


def _stem(name: str) -> str:
    return re.sub(r"\.[^.]+$", "", name)


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

"""Batches (`batch=N`): which steps of a rule may share a process, and what a shell command is told of each.

How many are made together is no part of an action: the text of a command with `{batch}` is that of one item.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

from labmake.engine.commands import as_word, flat, names_in
from labmake.engine.patterns import wildcards
from labmake.errors import RuleError
from labmake.model import Action, Recipe, Step

HOLE = "batch"
"""The name by which a command asks for the table of its batch."""

SEED = "LABMAKE_SEED"
"""The last column of the table: a variable could hold the seed of one item only."""


def check_batch(step: Step, recipe: Recipe, outputs: Collection[str], binding: Collection[str]) -> None:
    """Raises RuleError for a step that cannot be one of a batch as it is written; `binding`: its wildcards' names."""
    if "batch" not in step.options:
        return
    many = step.options["batch"] > 1
    if recipe.kind not in ("function", "sh") and many:
        kind = {"python": "a Python script", "document": "a document"}.get(recipe.kind, "a script")
        raise RuleError(
            f"batch= needs a Python function or a shell command, and this is {kind}",
            [("recipe", recipe.text), ("batch", step.options["batch"])],
            ['write it as a function: py("file.py:function"), or as sh("… {batch}"), or drop batch='],
        )
    if recipe.kind == "sh" and (many or HOLE in names_in(recipe.text)):
        _check_command(step, recipe.text, outputs, binding)


def _check_command(step: Step, command: str, outputs: Collection[str], binding: Collection[str]) -> None:
    kinds = [("an input", step.inputs), ("a parameter", step.params), ("an output", outputs), ("a wildcard", binding)]
    for kind, names in kinds:
        for reserved in (HOLE, SEED):
            if reserved in names:
                raise RuleError(
                    f"{reserved} has a meaning of its own in a command with batch=, and is the name of {kind}",
                    [("command", command)],
                    ["rename it"],
                )
    asked = names_in(command)
    if HOLE not in asked:
        raise RuleError(
            "the rule has batch=, and its command does not ask for {batch}",
            [("command", command), ("batch", step.options["batch"])],
            [
                "{batch} is the path of a table: a line for each item, with its wildcards, parameters, inputs and "
                "outputs in named columns, separated by tabs",
                "have the command read it and write all outputs, as in sh('python src/all.py {batch}'), or drop batch=",
            ],
        )
    own = {"out", *outputs, *binding}
    own |= {name for name, spec in step.inputs.items() if isinstance(spec, str) and wildcards(spec)}
    wrong = sorted(asked & own)
    if wrong:
        raise RuleError(
            f"the command runs once for many items, and asks for {{{wrong[0]}}}, which each has its own of",
            [("command", command)],
            [f"take it from the column {wrong[0]} of the table {{batch}}"],
        )
    if step.options.get("checkpoint"):
        raise RuleError(
            "a command that makes many items has no checkpoint",
            [("command", command)],
            ["drop checkpoint=; an item that it names in the file LABMAKE_DONE is kept, whatever happens to the rest"],
        )


def batch_of(
    action: Action, options: Mapping[str, Any], binding: Mapping[str, str], command: list[str], seed: str
) -> dict[str, Any] | None:
    """What a worker is told of the batch that a step may join; None if it runs alone: {key, most, row}.

    Steps with the same key may be made together: same code, recipe, options and (filled) command. `row` is what the
    table says of a shell command's item, None for a function.
    """
    most = options.get("batch", 1)
    row = None
    if action.recipe.kind == "sh":
        if (
            HOLE not in names_in(action.recipe.text)
            or HOLE in binding
            or HOLE in action.roles
            or "batch" not in options
        ):
            return None
        row = _row(action, binding, seed)
    elif most == 1:
        return None
    same = (
        [action.recipe.kind, action.recipe.text, action.recipe.function, command],
        sorted((name, repr(value)) for name, value in options.items()),
        action.code,
        list(row or ()),
    )
    return {"key": hashlib.sha256(repr(same).encode()).hexdigest()[:16], "most": most, "row": row}


def _row(action: Action, binding: Mapping[str, str], seed: str) -> dict[str, str | list[str]]:
    """The columns of one item: wildcards, parameters, inputs (a list becomes a file), outputs, its seed."""
    row: dict[str, str | list[str]] = dict(binding)
    row.update((name, as_word(value)) for name, value in action.params.items())
    row.update((name, role if isinstance(role, str) else flat(role)) for name, role in action.roles.items())
    row.update(action.outputs)
    row[SEED] = seed
    for name, value in row.items():
        lines = [value] if isinstance(value, str) else value
        bad = "\t\n\r" if isinstance(value, str) else "\n"
        for text in lines:
            if any(character in text for character in bad):
                raise RuleError(
                    f"a table of a batch has no place for tabs and line ends, and {name} has one",
                    [("column", name), ("value", repr(text))],
                    ["rename it, or make the rule one without batch="],
                )
    return row

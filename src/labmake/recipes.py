"""Recipes: what a step runs. `py`, `r`, `julia`, `script` and `sh` make them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from labmake.errors import Misuse, RuleError
from labmake.model import Json, Recipe

NAME = r"[A-Za-z_][A-Za-z0-9_]*"


def py(target: str, /, **params: object) -> Recipe:
    """A Python step: `"file.py:function"`, or `"file.py"` for a script that gets `name=path` arguments.

    The file is looked up beside script.py, then from the project's root. Keywords are parameters (JSON values).
    """
    file, colon, function = _text("py", target).partition(":")
    part = rf"(?!\d)(?:\w|\{{{NAME}\}})+"  # a wildcard may name the function, or a part of its name
    if not file.endswith(".py") or (colon and not re.fullmatch(rf"{part}(\.{part})*", function)):
        raise RuleError(
            f"py({target!r}) names no Python file or function",
            [("given", target)],
            ['write py("src/file.py:function"), or py("file.py") for a script'],
        )
    return Recipe("function" if colon else "python", file, function, params=parameters(params))


def r(file: str, /, **params: object) -> Recipe:
    """An R script, run by Rscript; it gets `name=path` arguments and LABMAKE_STEP."""
    return Recipe("script", _text("r", file), interpreter="Rscript", params=parameters(params))


JULIA = "julia --startup-file=no --project=."
"""Julia with the packages of the project's Project.toml and Manifest.toml, which lie in the step folder, and without
the user's startup.jl, which may change results."""


def julia(file: str, /, **params: object) -> Recipe:
    """A Julia script; it gets `name=path` arguments and LABMAKE_STEP, and the packages of the project's manifest."""
    return Recipe("script", _text("julia", file), interpreter=JULIA, params=parameters(params))


def script(file: str, interpreter: str, /, **params: object) -> Recipe:
    """A script in any language: run as `interpreter file name=path …` with LABMAKE_STEP set."""
    return Recipe("script", _text("script", file), interpreter=_text("script", interpreter), params=parameters(params))


def sh(command: str, /, **params: object) -> Recipe:
    """A shell command (bash -euo pipefail). `{name}` is an input, output, parameter or wildcard, quoted as needed;
    `{name.list}` a file with one path a line; `{{name}}` the literal text; any other brace stays as it is."""
    return Recipe("sh", _text("sh", command), params=parameters(params))


def _text(recipe: str, value: object) -> str:
    if isinstance(value, str) and value.strip() and "\0" not in value:
        return value
    raise RuleError(
        f"{recipe}() takes a text",
        [("type", type(value).__name__), ("given", repr(value)[:200])],
        ['py("file.py:function"), r("file.R"), julia("file.jl"), script("file", "interpreter"), sh("command")'],
    )


def parameters(values: Mapping[str, object]) -> dict[str, Json]:
    """The parameters as JSON values; numpy scalars are converted. Raises RuleError naming one that is none."""
    return {name: _json(value, name) for name, value in values.items()}


def _json(value: object, name: str) -> Json:
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _json(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return _json(value.tolist(), name)
    raise RuleError(
        f"the parameter {name} is no JSON value",
        [("type", type(value).__name__), ("value", repr(value)[:200])],
        ["a parameter is a finite number, a text, True, False, None, or a list or dict of them; pass data as a file"],
    )


def check_recipe(value: object) -> Recipe:
    """`value` if it is a recipe. Raises Misuse that says what `run=` takes."""
    if isinstance(value, Recipe):
        return value
    raise Misuse(
        "run= is no recipe",
        [("given", repr(value)[:200])],
        ['write run=py("file.py:function"), r("file.R"), julia("file.jl"), script("file", "program") or sh("command")'],
    )

"""Recipes: what a step runs. `py`, `r`, `script` and `sh` make them; `fill` puts values into a shell command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from labmake.errors import Misuse, RuleError
from labmake.model import Json, Recipe

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_HOLE = re.compile(r"(?<!\$)\{\{(" + NAME + r"(?:\.list)?)\}\}|(?<!\$)\{(" + NAME + r")(\.list)?\}")


def py(target: str, /, **params: object) -> Recipe:
    """A Python step: `"file.py:function"`, or `"file.py"` for a script that gets `name=path` arguments.

    The file is looked up beside script.py, then from the project's root. Keywords are parameters (JSON values).
    """
    file, colon, function = target.partition(":")
    if not file.endswith(".py") or (colon and not re.fullmatch(rf"{NAME}(\.{NAME})*", function)):
        raise RuleError(
            f"py({target!r}) names no Python file or function",
            [("given", target)],
            ['write py("src/file.py:function"), or py("file.py") for a script'],
        )
    return Recipe("function" if colon else "python", file, function, params=parameters(params))


def r(file: str, /, **params: object) -> Recipe:
    """An R script, run by Rscript; it gets `name=path` arguments and LABMAKE_STEP."""
    return Recipe("script", file, interpreter="Rscript", params=parameters(params))


def script(file: str, interpreter: str, /, **params: object) -> Recipe:
    """A script in any language: run as `interpreter file name=path …` with LABMAKE_STEP set."""
    return Recipe("script", file, interpreter=interpreter, params=parameters(params))


def sh(command: str, /, **params: object) -> Recipe:
    """A shell command (bash -euo pipefail). `{name}` is an input, output, parameter or wildcard, quoted as needed;
    `{name.list}` a file with one path a line; `{{name}}` the literal text; any other brace stays as it is."""
    return Recipe("sh", command, params=parameters(params))


def parameters(values: Mapping[str, object]) -> dict[str, Json]:
    """The parameters as JSON values; numpy scalars are converted. Raises RuleError naming one that is none."""
    return {name: _json(value, name) for name, value in values.items()}


def _json(value: object, name: str) -> Json:
    if value is None or isinstance(value, (bool, int, float, str)):
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
        ["a parameter is a number, a text, true, false, None, or a list or dict of them; pass data as a file"],
    )


def holes(command: str) -> list[str]:
    """The names that `{name}` and `{name.list}` of a shell command ask for, in order, each once."""
    return list(dict.fromkeys(match[2] for match in _HOLE.finditer(command) if match[2]))


def fill(command: str, values: Mapping[str, str | Sequence[str]], lists: Mapping[str, str]) -> str:
    """The command with every `{name}` replaced by its value, quoted for the place it stands in.

    A list becomes quoted words. `lists` maps a name to the file that holds its paths, one a line. Raises RuleError
    for an unknown name.
    """
    out: list[str] = []
    quote, end = "", 0
    for match in _HOLE.finditer(command):
        between = command[end : match.start()]
        quote = _quote_state(between, quote)
        out.append(between)
        end = match.end()
        if match[1]:
            out.append("{" + match[1] + "}")
            continue
        name, is_list = match[2], match[3]
        if name not in values or (is_list and name not in lists):
            raise RuleError(
                f"the command asks for {{{name}{is_list or ''}}}, which the rule does not have",
                [("command", command), ("has", ", ".join(sorted(values)))],
                [f"name an input, output, parameter or wildcard {name}, or write {{{{{name}}}}} for the literal text"],
            )
        value = lists[name] if is_list else values[name]
        words = [value] if isinstance(value, str) else list(value)
        out.append(" ".join(_quoted(word, quote) for word in words))
    out.append(command[end:])
    return "".join(out)


def _quoted(word: str, quote: str) -> str:
    if quote == "'":
        return word.replace("'", "'\\''")
    if quote == '"':
        return re.sub(r'([\\"$`])', r"\\\1", word)
    return shlex.quote(word)


def _quote_state(text: str, quote: str) -> str:
    """The quote that is open after `text`, if `quote` was open before it."""
    index = 0
    while index < len(text):
        char = text[index]
        if char == "\\" and quote != "'":
            index += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        index += 1
    return quote


def as_word(value: Json) -> str:
    """A parameter as the text that a command line gets: a text as it is, anything else as JSON."""
    from labmake.model import canonical

    return value if isinstance(value, str) else canonical(value)


def check_recipe(value: object) -> Recipe:
    """`value` if it is a recipe. Raises Misuse that says what `run=` takes."""
    if isinstance(value, Recipe):
        return value
    raise Misuse(
        "run= is no recipe",
        [("given", repr(value)[:200])],
        ['write run=py("file.py:function"), r("file.R"), script("file", "interpreter") or sh("command")'],
    )

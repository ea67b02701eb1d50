"""Filling a document's `{{ name.key | round(3) }}` in from results, which is also how its inputs are discovered.

The delimiters are Jinja's with a space, `{{ ` and `{% `, and comments are `{{# … #}}`: TeX writes `{{` and `{%`, and
`{#fig:x}` is pandoc's way to label a figure. Code and HTML comments are left as they are.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from labmake.documents.filters import FILTERS, Cell, cells, checked, listed
from labmake.documents.markdown import code, line_at
from labmake.errors import RuleError, Where

if TYPE_CHECKING:
    from jinja2 import Environment

OPEN, MIDDLE, CLOSE = "\ue0f0", "\ue0f1", "\ue0f2"
"""Around a filled-in value when marks are asked for: OPEN, what was written (hidden), MIDDLE, value, CLOSE."""

_HIDDEN = 0xF0000
"""Bytes of what was written are shifted here, into private characters, which pandoc leaves out of identifiers."""

_PLACE = re.compile("\ue0f3(\\d+)\ue0f4(\n*)")
_TIGHT = re.compile(r"\{\{([A-Za-z_]\w*(?:(?:\.[A-Za-z_]\w*|\[[^\]\n]*\])+(?:\s*\|[^{}\n]*)?|\s*\|[^{}\n]*))\}\}")


def expand(text: str, name: str, value: Callable[[str], object], mark: bool = False) -> str:
    """The document `name` with all values filled in; `value("x")` is asked once for each unknown name `x`.

    Names in branches that are not taken are asked for too. `value` returns parsed data (see `parse`); whatever it
    raises passes through untouched, also a BaseException. With `mark`, values stand between OPEN and CLOSE, for
    `provenance`. Raises RuleError with file and line for a syntax error, a missing key, an empty or NaN value, an
    unknown filter, a number that is none.
    """
    import jinja2

    hidden: list[str] = []
    source = _hide(text, hidden)
    _no_tight(source, name)
    raised: list[BaseException] = []
    environment = _environment(value, raised)
    try:
        if mark:
            source = _marked(environment, source)
        expanded = environment.from_string(_signs(source)).render()
    except BaseException as error:
        if any(error is one for one in raised):
            raise
        if isinstance(error, jinja2.TemplateSyntaxError):
            raise _syntax(error, name, text, environment) from None
        if not isinstance(error, Exception):
            raise
        raise _failure(error, name, text) from None

    def shown(place: re.Match[str]) -> str:
        literal = hidden[int(place[1])]
        return literal + place[2][literal.count("\n") :]

    return _PLACE.sub(shown, expanded)


def written_in(mark: str) -> str:
    """What the author wrote, from the characters between OPEN and MIDDLE."""
    return bytes(ord(character) - _HIDDEN for character in mark).decode()


def names(text: str) -> list[str]:
    """The names that a document takes from results, sorted; found without asking for any of them.

    Raises RuleError for a syntax error.
    """
    import jinja2
    from jinja2 import meta

    environment = _environment(lambda name: None, [])
    try:
        tree = environment.parse(_signs(_hide(text, [])))
    except jinja2.TemplateSyntaxError as error:
        raise _syntax(error, "the document", text, environment) from None
    return sorted(meta.find_undeclared_variables(tree) - set(environment.globals))


def parse(path: str, data: bytes) -> object:
    """What a result file holds, by its suffix: .json, .csv and .tsv (rows as dicts of str), .toml, .txt (stripped).

    Raises RuleError for another suffix and for a file that is not what its suffix says.
    """
    suffix = path.rpartition(".")[2].lower()
    try:
        text = data.decode("utf-8-sig")
        if suffix == "json":
            return json.loads(text)
        if suffix in ("csv", "tsv"):
            return list(csv.DictReader(io.StringIO(text), delimiter="," if suffix == "csv" else "\t", strict=True))
        if suffix == "toml":
            import tomllib

            return tomllib.loads(text)
        if suffix in ("txt", "md"):
            return text.strip()
    except (ValueError, csv.Error) as error:
        raise RuleError(f"{path} cannot be read: {error}", [("file", path)]) from None
    raise RuleError(
        f"a document cannot take values from {path}",
        [("file", path), ("can be read", ".json, .csv, .tsv, .toml, .txt")],
        "write what the document shows to one of these",
    )


def _hide(text: str, hidden: list[str]) -> str:
    """`text` with code replaced by placeholders with as many lines, so that Jinja counts lines as an editor does."""
    parts: list[str] = []
    position = 0
    text = text.replace("\r\n", "\n")
    for start, end in code(text):
        parts += [text[position:start], f"\ue0f3{len(hidden)}\ue0f4", "\n" * text.count("\n", start, end)]
        hidden.append(text[start:end])
        position = end
    return "".join([*parts, text[position:]])


def _signs(source: str) -> str:
    # Jinja reads the minus of `{{ -x }}` as "strip spaces"; a second space makes it a sign again.
    return re.sub(r"\{\{ (?=[-+])", "{{  ", source)


def _no_tight(source: str, name: str) -> None:
    """Raises RuleError for `{{x.y}}`, which would stand in the PDF as it is."""
    found = _TIGHT.search(source)
    if found:
        where = Where(name, line_at(source, found.start()))
        raise RuleError(
            f"{found[0]} is not filled in, because the braces have no spaces",
            [("line", found[0])],
            f"write {{{{ {found[1].strip()} }}}} (without spaces the braces are TeX's)",
            where,
        )


def _marked(environment: Environment, source: str) -> str:
    """`source` with OPEN, what is written, MIDDLE before and CLOSE behind each `{{ … }}`."""
    parts: list[str] = []
    start = 0
    for _, kind, text in environment.lex(_signs(source)):
        if kind == "variable_begin":
            start = len(parts)
            parts.append("")
        parts.append(text)
        if kind == "variable_end":
            written = "".join(parts[start + 2 : -1]).strip()
            parts[start] = f"{OPEN}{''.join(chr(_HIDDEN + byte) for byte in written.encode())}{MIDDLE}"
            parts.append(CLOSE)
    return "".join(parts)


def _environment(value: Callable[[str], object], raised: list[BaseException]) -> Environment:
    """Jinja as documents use it; unknown names are asked of `value`; what it raises is kept in `raised`."""
    import jinja2
    from jinja2.runtime import Context
    from jinja2.utils import missing

    loaded: dict[str, object] = {}

    class Names(Context):
        def resolve_or_missing(self, key: str) -> Any:
            known = super().resolve_or_missing(key)
            if known is not missing:
                return known
            if key not in loaded:
                try:
                    loaded[key] = cells(value(key))
                except BaseException as error:
                    raised.append(error)
                    raise
            return loaded[key]

    class Results(jinja2.Environment):
        def getattr(self, obj: Any, attribute: str) -> Any:
            # A key wins over the method of the same name: {"items": 3} is a result, dict.items is not.
            if isinstance(obj, Mapping):
                return obj[attribute] if attribute in obj else self._absent(obj, attribute)
            found = super().getattr(obj, attribute)
            return self._absent(obj, attribute) if isinstance(found, jinja2.Undefined) else found

        def getitem(self, obj: Any, argument: Any) -> Any:
            if isinstance(obj, Mapping) and isinstance(argument, Cell | int) and argument not in obj:
                argument = str(argument)
            found = super().getitem(obj, argument)
            return self._absent(obj, argument) if isinstance(found, jinja2.Undefined) else found

        def _absent(self, obj: Any, key: object) -> Any:
            if isinstance(obj, jinja2.Undefined):
                return obj
            return jinja2.StrictUndefined(exc=lambda message: _no_key(obj, key))  # type: ignore[arg-type]

    environment = Results(
        variable_start_string="{{ ",
        variable_end_string="}}",
        block_start_string="{% ",
        block_end_string="%}",
        comment_start_string="{{#",
        comment_end_string="#}}",
        undefined=jinja2.StrictUndefined,
        finalize=checked,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.context_class = Names
    environment.globals = {"range": range}
    environment.filters.update(FILTERS)
    del environment.filters["random"]  # the same document must give the same bytes
    return environment


def _no_key(obj: object, key: object) -> RuleError:
    if isinstance(obj, Mapping):
        keys = [str(one) for one in obj]
        near = difflib.get_close_matches(str(key), keys, 3, 0.5) or keys
        return RuleError(f"there is no {str(key)!r}", [("nearest" if near is not keys else "keys", listed(near))])
    if isinstance(obj, list):
        todo = "say which: [0] for the first, `| row(column='value')`, or a loop"
        return RuleError(f"there is no {str(key)!r} in a list of {len(obj)} elements", todo=todo)
    return RuleError(f"{str(obj)!r} has no {str(key)!r}")


def _syntax(error: Any, name: str, text: str, environment: Environment) -> RuleError:
    message = str(error.message or error).rstrip(".")
    unknown = re.match(r"No (filter|test) named '(\w+)'", message)
    near = difflib.get_close_matches(unknown[2], environment.filters, 3) if unknown else []
    advice = "to show these signs as they are, put them into code, or write {{ '{{' }}"
    return _said(
        message, [("nearest", ", ".join(near))] if near else [], [] if unknown else [advice], name, text, error.lineno
    )


def _failure(error: Exception, name: str, text: str) -> RuleError:
    line, traceback = 0, error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    if isinstance(error, RuleError):
        return _said(error.what, error.facts, error.todo, name, text, line)
    return _said(f"{error} ({type(error).__name__})", [], [], name, text, line)


def _said(what: str, facts: Any, todo: list[str], name: str, text: str, line: int) -> RuleError:
    where = Where(name, line)
    lines = text.replace("\r\n", "\n").split("\n")
    written = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    shown = [*([("line", written)] if written else []), *facts]
    return RuleError(f"{name}: {what}", shown, todo, where)

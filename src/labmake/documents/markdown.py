"""What a Markdown document says about itself without running pandoc: front matter, code, and the files it names."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from labmake.errors import RuleError, Where
from labmake.frozen import frozen

_FRONT = re.compile(r"\A---[ \t]*\n(.*?\n)??(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)

_CODE = re.compile(
    r"""(?P<escape>\\.)
    | ^[ \t]*(?:>[ \t]?)*(?P<fence>`{3,}|~{3,})[^`\n]*\n(?:.*\n)*?[ \t]*(?:>[ \t]?)*(?P=fence)[`~]*[ \t]*$
    | <!--[\s\S]*?-->
    | (?P<ticks>`+)(?:(?!\n[ \t]*\n)[\s\S])+?(?<!`)(?P=ticks)(?!`)
    | (?P<lone>`+)""",
    re.MULTILINE | re.VERBOSE,
)
_CONTAINER = re.compile(r"[ ]{0,3}(?:[-*+]|\(?(?:\d+|[A-Za-z#]|[ivxIVX]+|@\w*)[.)]|\[\^[^\]]+\]:|[:~])(?:\s|$)")

_TITLE = r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
_ATTRIBUTES = r"\{[^{}\n]*\}"
_DEFINITION = re.compile(
    r"^[ ]{0,3}\[(?!\^)(?P<label>(?:\\.|[^\]\\\n])+)\]:[ \t]*(?:\n[ \t]*)?"
    r"(?:<(?P<angle>[^>\n]*)>|(?P<plain>[^\s<](?:[^\n]*?[^\s])??))"
    rf"(?:[ \t]*\n?[ \t]+(?:{_TITLE}|\([^()\n]*\)))?(?:[ \t]*{_ATTRIBUTES})?[ \t]*$",
    re.MULTILINE,
)
_INLINE = re.compile(
    r"\([ \t\n]*(?:<(?P<angle>[^>]*)>|(?P<plain>(?:\\.|\((?:\\.|[^()\\])*\)|[^()\\])*?))"
    rf"(?:[ \t\n]+{_TITLE})?[ \t\n]*\)"
)
_IMG = re.compile(r"""<img\b[^>]*?\bsrc\s*=\s*(?:"(?P<a>[^"]*)"|'(?P<b>[^']*)'|(?P<c>[^\s>]+))""", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:|//")
_PUNCTUATION = re.compile(r"\\([!-/:-@\[-`{-~ ])")


@frozen
class References:
    """The files that a document names, as written, each once, in order: images; bibliographies and citation style."""

    images: list[str]
    bibliography: list[str]

    @property
    def files(self) -> list[str]:
        return list(dict.fromkeys(self.images + self.bibliography))


def front_matter(text: str, name: str) -> dict[str, Any]:
    """The YAML between the `---` lines at the very start of a document; {} without one. All scalars are str.

    Raises RuleError with the line in `name` where the YAML cannot be read.
    """
    found = _FRONT.match(text)
    if not found or not found[1]:
        return {}
    import yaml

    try:
        # Everything stays text: YAML would otherwise make a date of `date` and a truth value of the country code NO.
        read = yaml.load(found[1], yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 2 if error.problem_mark else 1
        raise RuleError(
            f"the front matter of {name} is not YAML: {error.problem or error}",
            [("line", _line(text, line))],
            'text that holds a colon or begins with a special sign needs quotes: title: "Priors: a comparison"',
            Where(name, line),
        ) from None
    except yaml.YAMLError as error:
        raise RuleError(f"the front matter of {name} is not YAML: {error}", where=Where(name, 1)) from None
    if read is None or read == "":
        return {}
    if not isinstance(read, dict):
        raise RuleError(
            f"the front matter of {name} is not a list of `key: value` lines",
            [("it is", repr(read))],
            where=Where(name, 1),
        )
    return read


def references(markdown: str) -> References:
    """The files that the expanded text of a document names; addresses with a scheme and code are left out.

    Raises RuleError for a front matter that cannot be read. What pandoc finds at rendering is compared with this.
    """
    meta = front_matter(markdown, "the document")
    bibliography = [path for key in ("bibliography", "csl") for path in _texts(meta.get(key)) if not is_address(path)]
    images = [path for path in _images(_prose(markdown)) if path and not is_address(path)]
    return References(list(dict.fromkeys(images)), list(dict.fromkeys(bibliography)))


def end_of_front_matter(text: str) -> int:
    """Where the prose begins."""
    found = _FRONT.match(text)
    return found.end() if found else 0


def is_address(path: str) -> bool:
    """Whether a reference has a scheme (`https:`, `data:`) instead of being a file's path."""
    return _SCHEME.match(path) is not None


def code(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of what is taken literally: fenced code, code spans, HTML comments. Not indented code."""
    for found in _CODE.finditer(text):
        if not found["escape"] and not found["lone"]:
            yield found.span()


def line_at(text: str, position: int) -> int:
    """The line, from 1, of a character."""
    return text.count("\n", 0, position) + 1


def line_of(text: str, words: str) -> int:
    """The first line that holds `words` outside of code, else anywhere; 0 if none does."""
    position = _blank(text).find(words)
    position = position if position >= 0 else text.find(words)
    return line_at(text, position) if position >= 0 else 0


def _line(text: str, line: int) -> str:
    lines = text.split("\n")
    return lines[line - 1].strip() if 0 < line <= len(lines) else ""


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, dict):
        return [path for one in value.values() for path in _texts(one)]
    return [path for one in value for path in _texts(one)] if isinstance(value, list) else []


def _blank(text: str) -> str:
    """`text` with a sign that means nothing in place of code; lines keep their numbers."""
    for start, end in code(text):
        text = text[:start] + re.sub(r"[^\n]", "\ue0f5", text[start:end]) + text[end:]
    return text


def _prose(text: str) -> str:
    """`text` without front matter and without any code, indented code included."""
    lines = _blank(text[end_of_front_matter(text) :]).split("\n")
    inside = False  # a list, footnote or definition, where indented text is no code
    before = "blank"
    for number, line in enumerate(lines):
        if not line.strip():
            before = "code" if before == "code" else "blank"
            continue
        indented = line.startswith(("    ", "\t", " \t", "  \t", "   \t"))
        if not indented:
            inside = bool(_CONTAINER.match(line)) or (inside and (line.startswith(" ") or before == "text"))
        if indented and not inside and before in ("blank", "code"):
            lines[number], before = "", "code"
        else:
            before = "text"
    return "\n".join(lines)


def _images(prose: str) -> Iterator[str]:
    """The targets of all images in order of their place, `![…](…)`, `![…][label]`, `![label]` and `<img src=…>`."""
    defined: dict[str, str] = {}
    for one in _DEFINITION.finditer(prose):
        defined.setdefault(_label(one["label"]), _target(one))
    found: list[tuple[int, str]] = [
        (one.start(), _path(one["a"] or one["b"] or one["c"] or "")) for one in _IMG.finditer(prose)
    ]
    for opening in re.finditer(r"\\.|!\[", prose, re.DOTALL):
        if opening[0] != "![":
            continue
        end = _closing(prose, opening.end())
        if end is None:
            continue
        text = prose[opening.end() : end]
        target = _INLINE.match(prose, end + 1)
        if target:
            found.append((opening.start(), _target(target)))
            continue
        label = re.compile(r"[ \t]*\n?[ \t]*\[((?:\\.|[^\]\\])*)\]").match(prose, end + 1)
        for key in (label[1] or text, text) if label else (text,):
            if _label(key) in defined:
                found.append((opening.start(), defined[_label(key)]))
                break
    return (path for _, path in sorted(found, key=lambda one: one[0]))


def _closing(text: str, position: int) -> int | None:
    """Where the bracket that was opened before `position` closes; None if the paragraph ends first."""
    depth = 1
    for token in re.compile(r"\\.|\[|\]|\n[ \t]*\n", re.DOTALL).finditer(text, position):
        if token[0] == "[":
            depth += 1
        elif token[0] == "]":
            depth -= 1
            if not depth:
                return token.start()
        elif token[0].startswith("\n"):
            return None
    return None


def _label(text: str) -> str:
    return " ".join(text.split()).casefold()


def _target(found: re.Match[str]) -> str:
    written = found["angle"] if found["angle"] is not None else found["plain"]
    return _path(" ".join(_PUNCTUATION.sub(r"\1", written or "").split()))


def _path(written: str) -> str:
    """The path of the file that an address in Markdown or HTML means: entities and %20 resolved."""
    return unquote(html.unescape(written))

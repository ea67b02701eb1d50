"""Where a number in the HTML comes from: the marks that `expand` leaves become spans with a title, or vanish."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from labmake.documents.markdown import end_of_front_matter
from labmake.documents.values import CLOSE, MIDDLE, OPEN, written_in

_MARKED = re.compile(f"{OPEN}([^{OPEN}{MIDDLE}{CLOSE}]*){MIDDLE}([^{OPEN}{MIDDLE}{CLOSE}]*){CLOSE}")
_ANY = re.compile(f"{OPEN}[^{OPEN}{MIDDLE}{CLOSE}]*{MIDDLE}|{CLOSE}")
_VALUE = re.compile(r"[\w.,+\-−–%×⁻\u202f\u00a0]+")
_BEFORE = re.compile(r"(?:^|[\s*_\"'–—≈<>±|]|(?<!\])\()\Z")
_AFTER = re.compile(r"\Z|[\s*_\"'–—|.,;:!?)%]")
_ALIGNED = re.compile(r"^[ \t]*(?:-{3,}[- ]*|\+[-=:+]{3,})$", re.MULTILINE)

_OPAQUE = ("Header", "Math", "Code", "CodeBlock", "RawInline", "RawBlock")


def prose(text: str) -> str:
    """Expanded text whose marks stand only around single values in running text, not inside addresses, labels, TeX.

    A mark elsewhere could keep pandoc from seeing `{#fig:x}` or `(figures/x.svg)`, or shift the columns of a table
    that is aligned by spaces: then the page and the PDF would differ.
    """
    body = end_of_front_matter(text)
    rest = text[body:]
    lines = [found.start() for found in _ALIGNED.finditer(rest)]
    # A table aligned by spaces lies around its lines of dashes; some have blank lines inside.
    tables = (rest.rfind("\n\n", 0, lines[0]), rest.find("\n\n", lines[-1]) % (len(rest) + 1)) if lines else (0, -1)

    def decide(found: re.Match[str]) -> str:
        before = _ANY.sub("", rest[max(0, found.start() - 2) : found.start()])
        whole = _VALUE.fullmatch(found[2]) and _BEFORE.search(before) and _AFTER.match(rest, found.end())
        return found[0] if whole and not tables[0] <= found.start() <= tables[1] else found[2]

    return _ANY.sub("", text[:body]) + _MARKED.sub(decide, rest)


def attribute(tree: bytes, title: Callable[[str], str] = str) -> bytes:
    """pandoc's tree with a Span (class `value`) around each marked value of running text; all other marks removed.

    `title` makes the span's title of what the author wrote between the braces.
    """
    read = json.loads(tree)
    read["blocks"] = _walk(read["blocks"], title)
    return _ANY.sub("", json.dumps(read, ensure_ascii=False)).encode()


def _walk(node: Any, title: Callable[[str], str]) -> Any:
    if isinstance(node, dict):
        if node.get("t") in _OPAQUE:
            return node
        return {key: _walk(value, title) for key, value in node.items()}
    if not isinstance(node, list):
        return node
    return [_walk(one, title) for item in node for one in _cut(item, title)]


def _cut(item: Any, title: Callable[[str], str]) -> list[Any]:
    """An inline, cut into text and spans if it is a Str that holds marks."""
    if not (isinstance(item, dict) and item.get("t") == "Str" and OPEN in item["c"]):
        return [item]
    out: list[Any] = []
    position = 0
    for found in _MARKED.finditer(item["c"]):
        span = [["", ["value"], [["title", title(written_in(found[1]))]]], [{"t": "Str", "c": found[2]}]]
        out += [{"t": "Str", "c": item["c"][position : found.start()]}, {"t": "Span", "c": span}]
        position = found.end()
    out.append({"t": "Str", "c": item["c"][position:]})
    return [one for one in out if one["c"] != ""]

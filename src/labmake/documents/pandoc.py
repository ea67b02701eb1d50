"""The one way to pandoc: Markdown to its syntax tree, checked; the tree to typst and HTML; its complaints explained.

pandoc runs in the step folder with its own data folder (ours), a UTF-8 locale and a proxy that does not exist: neither
a user's configuration nor the network nor the language of the machine can change a document.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from labmake.documents.filters import listed
from labmake.documents.markdown import front_matter, is_address, line_of, references
from labmake.errors import Misuse, RuleError, Where
from labmake.frozen import frozen

TEMPLATES = Path(__file__).parent / "templates"
PICTURES = {
    "typst": ("svg", "png", "jpg", "jpeg", "gif", "webp", "pdf"),
    "html": ("svg", "png", "jpg", "jpeg", "gif", "webp"),
}
"""The image formats that each output can show."""

_WORDS = {"fig": "figure", "tbl": "table", "eq": "equation", "sec": "section"}
_EXAMPLES = {
    "fig": "![caption](figures/a.svg){#fig:x}",
    "tbl": "a table with the caption  : caption {#tbl:x}",
    "eq": "$$ … $$ {#eq:x}",
    "sec": "# Heading {#sec:x}",
}


@frozen
class Document:
    """A document whose values are filled in. `written` is the text before that: errors name its lines."""

    name: str
    markdown: str
    root: Path
    written: str = ""

    def where(self, *words: str) -> Where:
        """The line that holds the first of `words` that occurs at all; the whole document if none does."""
        text = self.written or self.markdown
        return Where(self.name, next((line for line in (line_of(text, word) for word in words if word) if line), 0))


@frozen
class Tree:
    """pandoc's syntax tree of a document, numbered and with its references resolved, and pandoc's warnings.

    `meta` is the front matter as text, `nodes` are pandoc's metadata and blocks.
    """

    document: Document
    json: bytes
    meta: dict[str, Any]
    nodes: list[Any]
    warnings: list[str]


def ast(document: Document) -> Tree:
    """The syntax tree of a document, cross references and citations resolved, all files it names present.

    Raises RuleError for unknown labels and citations, and for files that are missing, undeclared or on the web.
    """
    meta = front_matter(document.markdown, document.name)
    _check_bibliography(document, meta)
    arguments = ["-f", "markdown", "-t", "json", "-L", str(TEMPLATES / "xref.lua"), "--citeproc"]
    output, warnings = run(document, arguments, document.markdown.encode())
    read = json.loads(output)
    tree = Tree(document, output, meta, [read["meta"], read["blocks"]], warnings)
    _check_images(tree)
    return tree


def run(document: Document, arguments: Sequence[str], data: bytes) -> tuple[bytes, list[str]]:
    """(output, warnings) of pandoc in the document's folder. Raises RuleError for what it cannot do."""
    locale = "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"
    nowhere = "http://127.0.0.1:9"
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": os.environ.get("HOME", "/"),
        "LC_ALL": locale,
        "TZ": "UTC",
    }
    environment |= {"http_proxy": nowhere, "https_proxy": nowhere}
    command = [_pandoc(), f"--data-dir={TEMPLATES}", *arguments]
    done = subprocess.run(command, input=data, capture_output=True, cwd=document.root, env=environment)
    said = done.stderr.decode("utf-8", "replace")
    if done.returncode:
        raise _refused(document, said)
    warnings = [text.strip() for text in re.split(r"^\[WARNING\] ", said, flags=re.MULTILINE) if text.strip()]
    _explain(document, warnings)
    return done.stdout, [" ".join(warning.split()) for warning in warnings]


def images(tree: Tree) -> list[str]:
    """The targets of all images in the tree, in order, each once, as paths."""
    found = (unquote(one["c"][2][0]) for one in elements(tree.nodes) if one["t"] == "Image")
    return list(dict.fromkeys(found))


def check_pictures(tree: Tree, format: str) -> None:
    """Raises RuleError for an image of a kind that `format` ("typst", "html") cannot show."""
    for path in images(tree):
        kind = path.rpartition(".")[2].lower()
        if not path.startswith("data:") and kind not in PICTURES[format]:
            raise RuleError(
                f"{tree.document.name} shows {path}, but a {'PDF' if format == 'typst' else 'web page'} cannot",
                [("can be shown", ", ".join(PICTURES[format]))],
                "make it as .svg (drawings) or .png (photographs)",
                tree.document.where(path),
            )


def elements(node: Any) -> Iterator[dict[str, Any]]:
    """All elements ({"t": …, "c": …}) below a node of pandoc's tree, in the order of the text."""
    if isinstance(node, dict):
        if "t" in node:
            yield node
        for value in node.values():
            yield from elements(value)
    elif isinstance(node, list):
        for value in node:
            yield from elements(value)


def _pandoc() -> str:
    # Importing pypandoc takes 80 ms and then asks each pandoc on the PATH for its version.
    found = importlib.util.find_spec("pypandoc")
    for folder in (found.submodule_search_locations or []) if found else []:
        program = Path(folder) / "files" / "pandoc"
        if program.exists():
            return str(program)
    raise Misuse("pandoc is not installed", todo="pip install pypandoc-binary")


def _check_bibliography(document: Document, meta: dict[str, Any]) -> None:
    for key in ("bibliography", "csl"):
        given = meta.get(key) or []
        for path in [given] if isinstance(given, str) else given:
            if is_address(path):
                raise _on_the_web(document, path)
            if not (document.root / path).is_file():
                raise _missing(document, path)


def _check_images(tree: Tree) -> None:
    document = tree.document
    declared = set(references(document.markdown).images)
    for path in images(tree):
        if path.startswith("data:"):
            continue
        if is_address(path):
            raise _on_the_web(document, path)
        if path.startswith("/") or ".." in path.split("/"):
            raise RuleError(
                f"{document.name} shows {path}, which lies outside", [("image", path)], where=document.where(path)
            )
        if path not in declared:
            raise RuleError(
                f"{document.name} shows {path} in a way that labmake does not recognise before rendering",
                [("image", path)],
                f"write it as ![caption]({path}), so that it is known as an input",
                document.where(path),
            )
        if not (document.root / path).is_file():
            raise _missing(document, path)


def _missing(document: Document, path: str) -> RuleError:
    return RuleError(f"{document.name} needs {path}, which is not there", [("file", path)], where=document.where(path))


def _on_the_web(document: Document, path: str) -> RuleError:
    return RuleError(
        f"{document.name} needs {path} from the web; a document is made without network",
        [("address", path)],
        'bring it in with source("data/…", "https://…") and name that file',
        document.where(path),
    )


def _refused(document: Document, said: str) -> RuleError:
    """What pandoc said when it gave up, as our error; xref.lua speaks in lines `labmake: kind label labels`."""
    ours = re.search(r"labmake: (\w+) (\S+)([^\n]*)", said)
    if not ours:
        text = said.strip().removeprefix("Error").strip()
        return RuleError(f"pandoc cannot read {document.name}", [("it says", text)], where=document.where())
    problem, label, known = ours[1], ours[2], ours[3].split()
    kind = label.partition(":")[0]
    if problem == "twice":
        return RuleError(f"{document.name}: the label {label} is given twice", where=document.where("#" + label))
    where = document.where("@" + label)
    if problem == "mixed":
        return RuleError(
            f"{document.name}: one pair of brackets holds citations and cross references",
            [("it begins with", f"@{label}")],
            "give each kind its own brackets",
            where,
        )
    same = [one for one in known if one.startswith(f"{kind}:")]
    near = difflib.get_close_matches(label, known, 3, 0.6)
    return RuleError(
        f"{document.name}: @{label} refers to no {_WORDS.get(kind, kind)} of this document",
        [("nearest", listed(near)) if near else ("there are", listed(same))],
        f"label one: {_EXAMPLES.get(kind, '')}".replace(":x}", f":{label.partition(':')[2]}}}"),
        where,
    )


def _explain(document: Document, warnings: list[str]) -> None:
    """Raises RuleError for those of pandoc's warnings that mean a hole in the document."""
    text = "\n".join(warnings)
    unknown = re.findall(r"^Citeproc: citation (\S+) not found", text, re.MULTILINE)
    if unknown:
        keys = _bibliography_keys(document)
        near = list(dict.fromkeys(key for one in unknown for key in difflib.get_close_matches(one, keys, 2)))
        raise RuleError(
            f"{document.name} cites {', '.join(unknown)}, which the bibliography does not have",
            [("nearest", ", ".join(near)) if near else ("bibliography has", listed(keys))],
            "" if keys else "name the file with its entries in the front matter: bibliography: …",
            document.where(*(f"@{one}" for one in unknown)),
        )
    formula = re.search(r"Could not convert TeX math ([\s\S]*?), rendering as TeX:\n([\s\S]*)", text)
    if formula:
        problem = re.search(r"^\s*(unexpected .*)$", formula[2], re.MULTILINE)
        raise RuleError(
            f"{document.name}: a formula cannot be read: {problem[1] if problem else 'its TeX is not known'}",
            [("formula", formula[1].strip())],
            where=document.where(formula[1].strip(), formula[1].strip().split("\n")[0]),
        )
    fetched = re.search(r"Could not fetch resource ([^\n]*?)(?::|$)(?: Http|\s|$)", text, re.MULTILINE)
    if fetched:
        raise (_on_the_web if is_address(fetched[1]) else _missing)(document, fetched[1])


def _bibliography_keys(document: Document) -> list[str]:
    keys: list[str] = []
    for path in references(document.markdown).bibliography:
        try:
            text = (document.root / path).read_text("utf-8", "replace")
        except OSError:
            continue
        keys += [
            a or b or c
            for a, b, c in re.findall(
                r'@\w+\s*\{\s*([^,\s]+)|^\s*-?\s*id:\s*(\S+)|"id"\s*:\s*"([^"]+)"', text, re.MULTILINE
            )
        ]
    return list(dict.fromkeys(keys))

"""Markdown to PDF: pandoc's syntax tree, its typst output in our page, typst in this process."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labmake.documents.pandoc import TEMPLATES, Document, Tree, ast, check_pictures, elements, run
from labmake.errors import RuleError

_FACES = ("Regular", "It", "Semibold", "SemiboldIt", "Bold", "BoldIt")


def render_pdf(
    markdown: str, root: Path, out: Path, *, name: str = "report.md", written: str = "", title_fallback: str = ""
) -> list[str]:
    """Writes the PDF of a document with its values filled in to `out`; the paths it names lie below `root`.

    The bytes depend on the text and on these files only; the date is the one of the front matter, or none. Returns
    warnings. Raises RuleError, with the line in `written` (the text before values were filled in) where it is known.
    """
    document = Document(name, markdown, root, written)
    tree = ast(document)
    check_pictures(tree, "typst")
    source, warnings = to_typst(tree, title_fallback)
    pdf, complaints = _compile(document, source)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(pdf)
    return [*tree.warnings, *warnings, *_lost(tree), *complaints]


def to_typst(tree: Tree, title_fallback: str = "") -> tuple[bytes, list[str]]:
    """(typst source, warnings) of a document."""
    arguments = ["-f", "json", "-t", "typst-citations", "--template", str(TEMPLATES / "report.typ.tmpl")]
    arguments += ["-L", str(TEMPLATES / "write.lua"), "--syntax-highlighting=idiomatic", "--wrap=none"]
    arguments += ["-M", f"title-fallback={title_fallback}"]
    arguments += ["-V", f"lang={tree.meta.get('lang') or 'en'}"] if isinstance(tree.meta.get("lang", ""), str) else []
    if tree.meta.get("numbersections") != "false":
        arguments += ["-V", "number-sections"]
    return run(tree.document, arguments, tree.json)


def _compile(document: Document, source: bytes) -> tuple[bytes, list[str]]:
    import typst

    try:
        with _fonts() as fonts:
            compiler = typst.Compiler(root=str(document.root.resolve()), font_paths=fonts)
            # Without a timestamp typst would write the time of day into the file.
            pdf, warnings = compiler.compile_with_warnings(input=source, timestamp=0)
    except typst.TypstError as error:
        raise _refused(document, error, source) from None
    assert isinstance(pdf, bytes)
    return pdf, [str(warning.message) for warning in warnings]


@contextmanager
def _fonts() -> Iterator[Any]:
    """Exactly the faces that come with the packages, so that two machines set the same page."""
    import font_source_sans_pro
    import typst

    # The package's folder has each face twice, and typst takes the one that the file system happens to list last.
    with tempfile.TemporaryDirectory() as folder:
        for face in _FACES:
            name = f"SourceSansPro-{face}.otf"
            (Path(folder) / name).symlink_to(Path(font_source_sans_pro.font_directory) / name)
        yield typst.Fonts(include_system_fonts=False, font_paths=[folder])


def _refused(document: Document, error: Any, source: bytes) -> RuleError:
    """typst's complaint; the line is found by the image, or by the text of the typst line it points at."""
    message = str(error.message).strip()
    place = re.search(r"[:\s](\d+):\d+", str(error.diagnostic))
    lines = source.decode("utf-8").split("\n")
    line = lines[int(place[1]) - 1].strip() if place and int(place[1]) <= len(lines) else ""
    image = re.search(r'image\("([^"]+)"', line)
    facts = [
        ("typst says", message),
        *([("at", line[:160])] if line else []),
        *(("hint", hint) for hint in error.hints),
    ]
    what = f"the image {image[1]} cannot be shown" if image else "it cannot be typeset"
    words = (image[1],) if image else (line, *sorted(re.findall(r"[\w ]{12,}", line), key=len, reverse=True))
    return RuleError(f"{document.name}: {what}", facts, where=document.where(*words))


def _lost(tree: Tree) -> list[str]:
    """Warnings for raw HTML and TeX, which a PDF does not show."""
    raw = [one["c"] for one in elements(tree.nodes) if one["t"] in ("RawBlock", "RawInline")]
    lost = dict.fromkeys(text.strip().split("\n")[0][:60] for kind, text in raw if kind != "typst" and _shows(text))
    return [f"the PDF does not show: {text}" for text in lost]


def _shows(tag: str) -> bool:
    return (
        not tag.startswith("</")
        and re.fullmatch(r"\\(new|clear)page\s*", tag) is None
        and re.match(r"<(?:br|div|span)\b", tag) is None
    )

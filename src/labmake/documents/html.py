"""Markdown to one HTML file that needs nothing else: images and style embedded, formulas as MathML, no scripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from labmake.documents.pandoc import TEMPLATES, Document, ast, check_pictures, run
from labmake.documents.provenance import attribute
from labmake.documents.values import names


def render_html(
    markdown: str,
    root: Path,
    out: Path,
    *,
    name: str = "report.md",
    written: str = "",
    title_fallback: str = "",
    sources: Mapping[str, str] | None = None,
) -> list[str]:
    """Writes the page of a document with its values filled in to `out`; as render_pdf in all else.

    A figure's `data-source` is its file. Values that were marked by `expand` become spans whose title says what was
    written and, by `sources` (name: file), where it is from.
    """
    document = Document(name, markdown, root, written)
    tree = ast(document)
    check_pictures(tree, "html")
    arguments = ["-f", "json", "-t", "html5", "-s", "--embed-resources", "--mathml", "--section-divs", "--wrap=none"]
    arguments += ["--template", str(TEMPLATES / "report.html.tmpl"), "-L", str(TEMPLATES / "write.lua")]
    arguments += ["-M", f"title-fallback={title_fallback or name}"]
    arguments += ["-V", f"style={(TEMPLATES / 'report.css').read_text('utf-8')}"]
    arguments += ["-V", "lang=en"] if "lang" not in tree.meta else []
    if tree.meta.get("numbersections") != "false":
        arguments.append("--number-sections")
    if tree.meta.get("toc") == "true":
        arguments += ["--toc", f"--toc-depth={tree.meta.get('toc-depth') or 2}"]

    def title(said: str) -> str:
        files = [(sources or {})[one] for one in names(f"{{{{ {said} }}}}") if one in (sources or {})]
        return f"{', '.join(files)}: {said}" if files else said

    page, warnings = run(document, arguments, attribute(tree.json, title))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(page)
    return [*tree.warnings, *warnings]

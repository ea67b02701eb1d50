"""The step that makes a document: `python -m labmake.documents.render` in a step folder, told by LABMAKE_STEP.

    {"inputs":     {"document": "report.md", "values": {"metrics": "data/metrics.json"}, "files": ["figures/a.svg"]},
     "parameters": {"look": "…"},
     "outputs":    {"pdf": "outputs/report.pdf"}}

All paths are from the step folder. The outputs are `pdf`, `html` or both.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from labmake.documents.html import render_html
from labmake.documents.pdf import render_pdf
from labmake.documents.provenance import prose
from labmake.documents.values import expand, parse
from labmake.errors import LabmakeError, RuleError, Where


def render(
    root: Path, document: str, values: Mapping[str, str], outputs: Mapping[str, str], name: str = ""
) -> list[str]:
    """Makes `outputs` ("pdf", "html": path) of a document with `values` (name: path), all below `root`.

    `name` is what errors call the document. Returns warnings. Raises RuleError.
    """
    name = name or document
    try:
        written = (root / document).read_text("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise RuleError(f"{name} is not UTF-8: {error.reason}", where=Where(name)) from None

    def value(wanted: str) -> object:
        if wanted not in values:
            raise RuleError(f"{name} uses {wanted!r}, which this step was not given", [("given", ", ".join(values))])
        return parse(values[wanted], (root / values[wanted]).read_bytes())

    title = Path(document).stem
    warnings: list[str] = []
    if "pdf" in outputs:
        text = expand(written, name, value)
        warnings += render_pdf(text, root, root / outputs["pdf"], name=name, written=written, title_fallback=title)
    if "html" in outputs:
        text = prose(expand(written, name, value, mark=True))
        warnings += render_html(
            text, root, root / outputs["html"], name=name, written=written, title_fallback=title, sources=values
        )
    return list(dict.fromkeys(warnings))


def main(argv: Sequence[str] = ()) -> int:
    """Makes the document that the file named by LABMAKE_STEP, or the one argument, asks for; 1 after an error."""
    try:
        step = json.loads(Path(argv[0] if argv else os.environ["LABMAKE_STEP"]).read_text("utf-8"))
        inputs = step["inputs"]
        warnings = render(
            Path.cwd(),
            inputs["document"],
            inputs.get("values") or {},
            step["outputs"],
            step["parameters"].get("name", ""),
        )
    except LabmakeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for warning in warnings:
        sys.stderr.write(f"warning: {warning}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The look of documents as a digest: a changed template or tool makes documents anew."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

_TOOLS = ("font-source-sans-pro", "jinja2", "pypandoc-binary", "typst")


def look_digest() -> str:
    """64 hex digits: this package's files, and the versions of the tools that set a document."""
    total = hashlib.sha256()
    here = Path(__file__).parent
    for path in sorted([*here.glob("*.py"), *(here / "templates").iterdir()]):
        total.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    for tool in _TOOLS:
        total.update(f"{tool} {metadata.version(tool)}\n".encode())
    return total.hexdigest()

"""What identifies a Python file, from what its analysis said of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from labmake.model import digest_of

KIND = f"python {sys.version_info[0]}.{sys.version_info[1]} 2"
"""Names the analysis of a Python file in a memo: trees differ between Python versions; the last number is raised with
the code."""

Facts = Mapping[str, Any]
"""What labmake.environment.code_python.analyse says of a file."""


def identity(facts: Facts, digest: str, sees: int, imported: bool) -> str:
    """What identifies a file in a closure whose files see as much as `sees`; `imported`: by another file of it."""
    if facts["raw"] or sees == 2:
        return digest
    text = f"{KIND}\n{facts['body']}\n{facts['docs'] if sees else ''}\n{facts['declared'] if imported else ''}\n"
    return digest_of(text.encode())

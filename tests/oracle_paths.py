"""Small questions about paths, patterns and trees of files, for the oracle."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from oracle_rules import Data


def digest(data: Data) -> str:
    """A digest of a file or folder."""
    if isinstance(data, dict):
        return digest("".join(f"{name} {digest(data[name])}\n" for name in sorted(data)).encode())
    return hashlib.sha256(data).hexdigest()


def files_of(path: str, data: Data) -> dict[str, bytes]:
    """A target as files by path."""
    return {f"{path}{name}": text for name, text in data.items()} if isinstance(data, dict) else {path: data}


def lies(tree: Mapping[str, bytes], path: str, data: Data) -> bool:
    """Whether exactly this target lies in a tree."""
    there = {name: text for name, text in tree.items() if name == path or (path[-1] == "/" and name.startswith(path))}
    return there == files_of(path, data)


def fill(pattern: str, wild: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)(?::[^}]*)?\}", lambda m: wild.get(m[1], m[0]), pattern)


def matched(pattern: str, path: str) -> dict[str, str] | None:
    """The values of a pattern's wildcards in a path."""
    text = "".join(
        (f"(?P<{piece[1]}>{piece[2] or '[^/]+'})" if piece[1] else re.escape(piece[0]))
        for piece in re.finditer(r"\{(\w+)(?::([^}]*))?\}|[^{]+", pattern)
    )
    found = re.fullmatch(text, path)
    return None if found is None else found.groupdict()

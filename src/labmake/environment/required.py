"""What a text of code asks for of the software around it: modules, commands, R packages. Found without running it."""

from __future__ import annotations

import re
from typing import Any

from labmake.environment import code_words

KIND = "software 1"
"""Names this reading in a memo; the number is raised with the code."""

R_BASE = frozenset(
    "base compiler datasets graphics grDevices grid methods parallel splines stats stats4 tcltk tools utils".split()
)
"""The packages that come with R and have its version."""

_PYTHON = re.compile(r"(?:.*/)?(?:python|pypy)[\d.]*")
_IMPORTS = re.compile(r"(?:^|[\s;\"'(])(?:import[ \t]+([\w., \t]+)|from[ \t]+([\w.]+)[ \t]+import\b)", re.MULTILINE)
_DYNAMIC = re.compile(
    rb"\b(?:import_module|__import__|run_module|entry_points|iter_entry_points)\s*\("
    rb"(?!\s*([\"'])[\w.]+\1\s*[,)])"
)
_R_COMMENT = re.compile(r"#[^\n\"']*$", re.MULTILINE)
_R_NAME = r"[A-Za-z][A-Za-z0-9.]*"
_R_ATTACHED = re.compile(
    rf"\b(?:library|require|requireNamespace|loadNamespace|attachNamespace|use|import::from)\s*\(\s*"
    rf"(?:(?:package|ns|\.from)\s*=\s*)?([\"'`]?)({_R_NAME})\1\s*([,)\[])"
)
_R_NAMED = re.compile(rf"\b({_R_NAME}):::?(?=[A-Za-z.`\"'])")
_R_SEVERAL = re.compile(r"\b(?:p_load|box::use)\s*\(([^()]*)\)")
_R_UNKNOWN = re.compile(
    r"\bcharacter\.only\s*=|\b(?:requireNamespace|loadNamespace|attachNamespace)\s*\((?!\s*(?:package\s*=\s*)?[\"'`])"
    r"|\b(?:[sl]apply|walk|do\.call)\s*\([^()\n]*\b(?:library|require|loadNamespace)\b"
)


def is_python(word: str) -> bool:
    """Whether a word of a command is the name of a Python interpreter."""
    return _PYTHON.fullmatch(word) is not None


def in_command(text: str) -> dict[str, Any]:
    """What a shell command or script asks for: `words` that may be programs, `python` interpreters among them,
    `modules` that these are given to run or import (`-m`, `-c`, a here document)."""
    words = code_words.command_words(text)
    pythons = [word for word in words if is_python(word)]
    modules = code_words.modules_run(text)
    if pythons:
        for found in _IMPORTS.finditer(text):
            names = [name.split()[0] for name in (found[1] or found[2]).split(",") if name.strip()]
            modules += [name for name in names if name.strip(".")]
    named = sorted({word for word in words if re.fullmatch(r"[\w./+-]+", word)})
    return {"words": named, "python": sorted(set(pythons)), "modules": sorted(set(modules))}


def in_shell_file(source: bytes, _: str) -> dict[str, Any]:
    """in_command for a file."""
    return in_command(source.decode("utf-8", "replace"))


def in_python_file(source: bytes, _: str) -> dict[str, Any]:
    """`any`: whether a Python file imports modules whose names it computes. What it imports by name is known already
    (labmake.environment.code_python)."""
    return {"any": _DYNAMIC.search(source) is not None}


def in_r_file(source: bytes, _: str) -> dict[str, Any]:
    """What an R script asks for: `packages` that it attaches, or names by `::`, but those that come with R; `any` if it
    computes their names, so that it may be any package."""
    text = _R_COMMENT.sub("", source.decode("utf-8", "replace"))
    found = {match[2] for match in _R_ATTACHED.finditer(text)}
    found |= {match[1] for match in _R_NAMED.finditer(text)}
    unknown = _R_UNKNOWN.search(text) is not None
    for several in _R_SEVERAL.finditer(text):
        for word in several[1].split(","):
            name = re.match(rf"\s*[\"'`]?({_R_NAME})", word)
            if name is not None and "=" not in word:
                found.add(name[1])
    return {"packages": sorted(found - R_BASE), "any": unknown}

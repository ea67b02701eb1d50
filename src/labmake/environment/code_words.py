"""The file names that scripts and shell commands mention, found without running or fully parsing them."""

from __future__ import annotations

import re
import shlex

KIND = "words 1"
"""Names this analysis in a memo; the number is raised with the code."""

SUFFIXES = {
    ".py": "python",
    ".r": "r",
    ".rmd": "r",
    ".qmd": "r",
    ".rprofile": "r",
    ".sh": "shell",
    ".bash": "shell",
    ".zsh": "shell",
    ".ksh": "shell",
    ".jl": "julia",
}
INTERPRETERS = {"python": "python", "Rscript": "r", "R": "r", "julia": "julia"} | dict.fromkeys(
    ("sh", "bash", "zsh", "ksh", "dash"), "shell"
)

_CALLS = {
    "r": re.compile(r"\b(?:sys\.source|source|sourceCpp|source_python|source_file)\s*\("),
    "julia": re.compile(r"\b(?:include|includet|include_dependency)\s*\("),
}
_LITERAL = re.compile(r'"((?:[^"\\\n]|\\.)*)"|\'((?:[^\'\\\n]|\\.)*)\'')
_SHELL_SOURCE = re.compile(
    r"(?:^|[;&|({]|\b(?:then|do|else)\b)\s*(?:source|\.)[ \t]+[\"']?([^\s;&|\"')]+)", re.MULTILINE
)
_SHELL_COMMENT = re.compile(r"(^|\s)#.*$", re.MULTILINE)
_SHELL_FOLDER = re.compile(r"(?:\$\{[^}]*\}|\$\w+|\))[\"']?/")
_PYTHON = r"(?<![\w.-])python[\d.]*\s+(?:-[uBEOsI]+\s+)*"
_BETWEEN = re.compile(r"[\s;|&()<>=,:'\"`]+")


def language(path: str) -> str | None:
    """The language that a file's name tells: python, r, shell, julia, "" for any other, None if it has no suffix."""
    name = path.rpartition("/")[2]
    if "." not in name:
        return None
    return SUFFIXES.get("." + name.rpartition(".")[2].lower(), "")


def shebang_language(start: bytes) -> str:
    """The language that the first line of a file names as its interpreter, or ""."""
    line = start.split(b"\n", 1)[0].decode("utf-8", "replace")
    if not line.startswith("#!"):
        return ""
    words = [word.rpartition("/")[2] for word in line[2:].split()]
    for word in words:
        found = INTERPRETERS.get(word) or INTERPRETERS.get(word.rstrip("0123456789."))
        if found:
            return found
    return ""


def named_files(source: bytes, kind: str) -> list[str]:
    """The file names in a script of language r, shell or julia that it may read as code; many may not exist.

    R and Julia: the strings in calls of source, include and their kin, also joined (`here("src", "a.R")`).
    Shell: what is sourced, and every word that looks like a file, since `python src/a.py` in a script is code too.
    A folder in a variable (`"$HERE/lib.sh"`) is read as "beside this file".
    """
    text = source.decode("utf-8", "replace")
    found: dict[str, None] = {}
    if kind == "shell":
        text = _SHELL_FOLDER.sub(" ./", _SHELL_COMMENT.sub(r"\1", text.replace("\\\n", " ")))
        found.update(dict.fromkeys(_SHELL_SOURCE.findall(text)))
        found.update((word, None) for word in _BETWEEN.split(text) if ("." in word or "/" in word) and "$" not in word)
    elif kind in _CALLS:
        for call in _CALLS[kind].finditer(text):
            strings = [double or single for double, single in _LITERAL.findall(_arguments(text, call.end()))]
            found.update(dict.fromkeys(strings))
            found["/".join(strings)] = None
    return [name for name in found if name.strip("./")]


READERS = {kind: lambda source, _, kind=kind: named_files(source, kind) for kind in ("r", "shell", "julia")}
"""named_files for each language, as functions of a file's bytes and path."""


def _arguments(text: str, start: int) -> str:
    """The text from `start` to the parenthesis that closes the one before it."""
    depth, position = 1, start
    while position < len(text) and depth:
        string = _LITERAL.match(text, position)
        if string:
            position = string.end()
            continue
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        position += 1
    return text[start:position]


def command_words(text: str) -> list[str]:
    """The words of a shell command, whole and cut at operators, `=`, `:`, commas and inner quotes, in order.

    Words with a `{placeholder}` are left out.
    """
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = list(lexer)
    except ValueError:
        words = text.replace('"', " ").replace("'", " ").split()
    found: dict[str, None] = {}
    for word in words:
        found[word] = None
        found.update(dict.fromkeys(_BETWEEN.split(word)))
    return [word for word in found if word and "{" not in word and "}" not in word]


def modules_run(text: str) -> list[str]:
    """The modules that a shell command runs by `python -m`."""
    return re.findall(_PYTHON + r"-m\s+([A-Za-z_][\w.]*)", text)


def only_run(text: str, word: str) -> bool:
    """Does a shell command give this word only to Python, as the script to run? Else it may read it as text."""
    mentions = len(re.findall(rf"(?<![\w./-]){re.escape(word)}(?![\w./-])", text))
    runs = len(re.findall(_PYTHON + rf"[\"']?{re.escape(word)}(?![\w./-])", text))
    return 0 < runs == mentions
